"""The inputs that tabs have in common, and what a model or a link puts into them."""

from typing import Any

import gradio as gr

from hf_mambalrp.space.catalog import Catalog
from hf_mambalrp.space.limits import Limits, RefusedError
from hf_mambalrp.space.pictures import source, thumbnails
from hf_mambalrp.space.question import Question
from hf_mambalrp.viz.method_names import method_name

NOTHING = {"target": "what it says", "contrast": "nothing"}
"""The first choice of a menu of classes."""


def text(limits: Limits, label: str, value: str, lines: int) -> gr.Textbox:
    """What is asked about."""
    # A paste that is far too long is cut here, so that no request of the page outgrows the limit of its body.
    return gr.Textbox(value, label=label, lines=lines, max_lines=lines + 6, max_length=5 * limits.document_characters)


def model(models: list[str]) -> gr.Dropdown:
    """Which model is asked; not shown where there is one."""
    return gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)


def method(names: tuple[str, ...]) -> gr.Dropdown:
    """How it is explained."""
    return gr.Dropdown([(method_name(name), name) for name in names], value="mambalrp", label="Method", min_width=120)


def level() -> gr.Radio:
    """Whether the answer is of words or of tokens."""
    return gr.Radio([("Words", "word"), ("Tokens", "token")], value="word", label="By", scale=2, min_width=160)


def rule() -> gr.Radio:
    """The rule of a hybrid's softmax attention; shown in the view of parts, for which it is."""
    choices = [("constant", "cp"), ("relevant too (AttnLRP)", "attnlrp")]
    return gr.Radio(choices, value="cp", label="Weights of softmax attention, where the model has it", visible=False)


def shown_with_parts(view: gr.Radio, rule: gr.Radio) -> None:
    """Show the rule in the view of parts alone."""
    view.change(lambda name: gr.update(visible=name == "parts"), view, rule, api_visibility="private", queue=False)


def chips(examples: dict[str, str]) -> list[tuple[gr.Button, str]]:
    """A button for every example, with its text."""
    with gr.Row(elem_classes="chips"):
        return [(gr.Button(name, size="sm", variant="secondary"), text) for name, text in examples.items()]


def picture(limits: Limits, value: str) -> gr.Textbox:
    """What is asked about: a file that the page's script reads into a hidden text, or an example."""
    gr.HTML(
        "<label class='drop'><input type='file' accept='image/*' id='picture-file' "
        f"data-bytes='{limits.picture_bytes}' data-pixels='{limits.picture_pixels}'>"
        f"<img alt='The picture' src='{source(value)}'>"
        "<span><b>Choose a picture</b>, or drop or paste one here. It goes to this page’s server, which saves no file."
        f"</span></label><div class='thumbs' role='group' aria-label='Examples'>{thumbnails()}</div>",
        elem_id="picture",
        apply_default_css=False,
    )
    return gr.Textbox(value, label="Picture", visible="hidden", elem_id="picture-data")


def classes(catalog: Catalog, name: str, label: str, title: str) -> gr.Dropdown:
    """The target or the contrast, one of a model's classes."""
    return gr.Dropdown(_labels(catalog, NOTHING[name], title), value="", label=label, min_width=120)


def _labels(catalog: Catalog, nothing: str, title: str) -> list[tuple[str, str]]:
    names = getattr(_configuration(catalog, title), "id2label", {})
    return [(nothing, ""), *((name, name) for _, name in sorted(names.items()))]


def choices(catalog: Catalog, name: str, title: str, value: str = "") -> Any:
    """The target's or the contrast's choices for a model."""
    return gr.update(choices=_labels(catalog, NOTHING[name], title), value=value)


def last_layer(catalog: Catalog, title: str) -> int:
    """The end of the slider for a model's layers."""
    layers = getattr(_configuration(catalog, title), "num_hidden_layers", 1)
    return max(layers - 1, 1)  # a slider needs two ends


def slider(catalog: Catalog, title: str, value: int = 0) -> Any:
    """The slider for a model's layers, at one of them."""
    return gr.update(maximum=last_layer(catalog, title), value=min(value, last_layer(catalog, title)))


def _configuration(catalog: Catalog, title: str) -> Any:
    """A model's configuration; None if it cannot be loaded now, which the answer will say."""
    try:
        return catalog.get(title)[0].config
    except RefusedError:
        return None


def filled(catalog: Catalog, name: str, question: Question) -> Any:
    """What a link puts into a field."""
    value = getattr(question, name)
    if question.kind in ("sentence", "image") and name in NOTHING:
        return choices(catalog, name, question.model, value)
    if name == "layer":
        return slider(catalog, question.model, value)
    return list(value) if isinstance(value, tuple) else value
