"""The same answers as numbers, for ``gradio_client`` and plain HTTP, under the same limits as the page."""

from collections.abc import Callable
from functools import cache
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.utils import get_function_params
from gradio_client.utils import python_type_to_json_schema

from hf_mambalrp.space.question import TASKS
from hf_mambalrp.space.serve import App


class Endpoints:
    """What the API of an app offers, each under its name."""

    def __init__(self, app: App) -> None:
        self.app = app

    def explain(
        self,
        text: str,
        request: gr.Request,
        target: str = "",
        contrast: str = "",
        method: str = "mambalrp",
        model: str = "",
        attention_rule: str = "cp",
    ) -> dict[str, Any]:
        """Explain what a classifier says about a text; an empty target is its prediction, an empty model the first.

        ``attention_rule`` is of a hybrid's softmax attention, "cp" or "attnlrp".
        """
        values = {"text": text, "target": target, "contrast": contrast, "method": method, "model": model}
        return self.app.described(request, kind="sentence", view="parts", rule=attention_rule, **values)

    def next_token(
        self,
        text: str,
        request: gr.Request,
        target: str = "",
        contrast: str = "",
        method: str = "mambalrp",
        model: str = "",
        attention_rule: str = "cp",
    ) -> dict[str, Any]:
        """Explain the next token of a language model; ``attention_rule`` as of ``explain``."""
        values = {"text": text, "target": target, "contrast": contrast, "method": method, "model": model}
        return self.app.described(request, kind="next", view="parts", rule=attention_rule, **values)

    def generate(
        self,
        text: str,
        request: gr.Request,
        tokens: int = 8,
        method: str = "mambalrp",
        model: str = "",
        contrast: str = "",
    ) -> dict[str, Any]:
        """Generate, and explain every generated token, rather than the ``contrast`` if there is one."""
        values = {"text": text, "tokens": tokens, "method": method, "model": model, "contrast": contrast}
        return self.app.described(request, kind="generation", **values)

    def attention(self, text: str, request: gr.Request, attention: str = "raw", model: str = "") -> dict[str, Any]:
        """Read off the hidden attention of every layer, "raw" or "unified"."""
        return self.app.described(request, kind="attention", text=text, attention=attention, model=model)

    def compare(
        self,
        text: str,
        request: gr.Request,
        target: str = "",
        method: str = "mambalrp",
        model: str = "",
        other_target: str = "",
        other_method: str = "gradient_x_input",
        other_model: str = "",
    ) -> dict[str, Any]:
        """Compare two explanations of a text; an empty target of the second, or model, is that of the first."""
        values = {"text": text, "target": target, "method": method, "model": model}
        values |= {"other_target": other_target, "other_method": other_method, "other_model": other_model}
        return self.app.described(request, kind="compare", **values)

    def document(self, text: str, request: gr.Request, method: str = "mambalrp", model: str = "") -> dict[str, Any]:
        """Explain what a classifier says about a long text."""
        return self.app.described(request, kind="document", text=text, method=method, model=model)

    def explain_image(
        self,
        picture: str,
        request: gr.Request,
        target: str = "",
        contrast: str = "",
        method: str = "mambalrp",
        gamma: float = 0.25,
        model: str = "",
    ) -> dict[str, Any]:
        """Explain what a classifier says about a picture: base64 of a JPEG, PNG or WebP file, or an example's name."""
        values = {"picture": picture, "target": target, "contrast": contrast, "method": method, "gamma": gamma}
        return self.app.described(request, kind="image", model=model, **values)

    def offer(self) -> None:
        """Add what the listed models can answer to the page that is being built.

        As ``gr.api`` does, but that has components of its own for every endpoint, all of which a visitor's browser sets
        up; here what is at the same place with the same default is one.
        """

        @cache
        def part(place: int, default: Any, of: Any) -> Api:
            ordinal = {1: "1st", 2: "2nd", 3: "3rd"}.get(place, f"{place}th")
            return Api(default, python_type_to_json_schema(of), ordinal)

        functions: dict[str, Callable[..., Any]] = {
            "sentence": self.explain,
            "next": self.next_token,
            "generation": self.generate,
            "attention": self.attention,
            "compare": self.compare,
            "document": self.document,
            "image": self.explain_image,
        }
        for kind, function in functions.items():
            if self.app.catalog.titles(*TASKS[kind]):
                inputs = [
                    part(place, default if has_default else None, of)
                    for place, (_, has_default, default, of) in enumerate(get_function_params(function), start=1)
                ]
                gr.on(
                    [],
                    function,
                    inputs,
                    part(1, None, dict[str, Any]),
                    api_name=function.__name__,
                    preprocess=False,
                    postprocess=False,
                    show_progress="hidden",
                    **self.app.queued,
                )
