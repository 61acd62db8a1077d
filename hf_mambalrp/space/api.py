"""The same answers as numbers, for ``gradio_client`` and plain HTTP, under the same limits as the page."""

from typing import Any

import gradio as gr
from gradio.events import api

from hf_mambalrp.space import serve
from hf_mambalrp.space.limits import LIMITS


def explain(
    text: str, request: gr.Request, target: str = "", contrast: str = "", method: str = "mambalrp", model: str = ""
) -> dict[str, Any]:
    """Explain what a classifier says about a text; an empty target is its prediction, an empty model the first."""
    values = {"text": text, "target": target, "contrast": contrast, "method": method, "model": model}
    return serve.described(request, kind="sentence", **values)


def next_token(
    text: str, request: gr.Request, target: str = "", contrast: str = "", method: str = "mambalrp", model: str = ""
) -> dict[str, Any]:
    """Explain the next token of a language model."""
    values = {"text": text, "target": target, "contrast": contrast, "method": method, "model": model}
    return serve.described(request, kind="next", **values)


def generate(
    text: str, request: gr.Request, tokens: int = 8, method: str = "mambalrp", model: str = ""
) -> dict[str, Any]:
    """Generate, and explain every generated token."""
    return serve.described(request, kind="generation", text=text, tokens=tokens, method=method, model=model)


def attention(text: str, request: gr.Request, attention: str = "raw", model: str = "") -> dict[str, Any]:
    """Read off the hidden attention of every layer, "raw" or "unified"."""
    return serve.described(request, kind="attention", text=text, attention=attention, model=model)


def document(text: str, request: gr.Request, method: str = "mambalrp", model: str = "") -> dict[str, Any]:
    """Explain what a classifier says about a long text."""
    return serve.described(request, kind="document", text=text, method=method, model=model)


def explain_image(
    picture: str,
    request: gr.Request,
    target: str = "",
    contrast: str = "",
    method: str = "mambalrp",
    gamma: float = 0.25,
    model: str = "",
) -> dict[str, Any]:
    """Explain what a classifier says about a picture: the base64 of a JPEG, PNG or WebP file, or an example's name."""
    values = {"picture": picture, "target": target, "contrast": contrast, "method": method, "gamma": gamma}
    return serve.described(request, kind="image", model=model, **values)


def endpoints() -> None:
    """Offer every function of this module under its name."""
    for function in (explain, next_token, generate, attention, document, explain_image):
        api(function, api_name=function.__name__, concurrency_id="model", concurrency_limit=LIMITS.at_once)
