"""The inputs that tabs have in common, and what a model or a link puts into them."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from hf_mambalrp.space.catalog import Catalog
from hf_mambalrp.space.limits import Limits, RefusedError
from hf_mambalrp.space.pictures import source, thumbnails
from hf_mambalrp.space.question import LEVELS, SHORT, Question
from hf_mambalrp.viz.markup import escaped
from hf_mambalrp.viz.method_names import method_name

OF_MODEL = {
    "sentence": ("text", "target", "contrast"),
    "next": ("text",),
    "generation": ("text",),
    "attention": ("text", "layer"),
    "compare": ("text",),
    "image": ("target", "contrast"),
}
"""The fields of every kind that another model brings something into."""
NOTHING = {"target": "what it says", "contrast": "nothing"}
"""The first choice of a menu of classes."""


def text(limits: Limits, label: str, value: str, lines: int) -> gr.Textbox:
    """What is asked about."""
    # A paste that is far too long is cut here, so that no request of the page outgrows the limit of its body.
    return gr.Textbox(value, label=label, lines=lines, max_lines=lines + 6, max_length=5 * limits.document_characters)


def model(models: list[str], label: str = "Model") -> gr.Dropdown | None:
    """Which model is asked; none where there is one."""
    return gr.Dropdown(models, value=models[0], label=label, min_width=120) if len(models) > 1 else None


def method(names: tuple[str, ...], value: str = "mambalrp", label: str = "Method") -> gr.Dropdown:
    """How it is explained."""
    return gr.Dropdown([(method_name(name), name) for name in names], value=value, label=label, min_width=120)


def level(kind: str) -> gr.Radio:
    """What the relevance is of, of words or of tokens; of a document what is listed first."""
    levels = LEVELS.get(kind, SHORT)
    names: Any = [(f"{name.capitalize()}s", name) for name in levels]
    return gr.Radio(names, value=levels[0], label="By", scale=2, min_width=160)


def rule() -> gr.Radio:
    """The rule of a hybrid's softmax attention; shown in the view of parts, for which it is."""
    choices = [("constant", "cp"), ("relevant too (AttnLRP)", "attnlrp")]
    return gr.Radio(choices, value="cp", label="Weights of softmax attention, where the model has it", visible=False)


def chosen(field: Any) -> Any:
    """What a field says after a visitor's choice.

    A menu of gradio says "input" when something is chosen, and again when it closes, in the same moment: the second
    request would be checked against the layers of the model that the first one has brought. It closes once.
    """
    return field.blur if isinstance(field, gr.Dropdown) else field.input


def shown_with(choice: Any, shown: Mapping[Any, Sequence[str]]) -> None:
    """Show every one of these fields with some of the choices alone; this asks no server."""
    update = "({__type__: 'update', visible: values.includes(chosen)})"
    js = f"chosen => {json.dumps([*shown.values()])}.map(values => {update})"
    choice.change(None, choice, [*shown], js=js, api_visibility="private")


def begun_with(catalog: Catalog, title: str, at: int = 0) -> str:
    """A text to begin with that fits a model; "" of one without."""
    texts = [*catalog.entry(title).begun_with.values()]
    return texts[at % len(texts)] if texts else ""


def chips(catalog: Catalog, title: str) -> gr.HTML:
    """The examples of a model; the page's script puts what is pressed into the text, and asks."""
    return gr.HTML(chips_html(catalog, title), elem_classes="examples", js_on_load=None, apply_default_css=False)


def chips_html(catalog: Catalog, title: str) -> str:
    """A button for every example of a model."""
    buttons = (
        f'<button type="button" data-text="{escape(text)}">{escaped(name)}</button>'
        for name, text in catalog.entry(title).begun_with.items()
    )
    return f'<div class="chips" role="group" aria-label="Examples">{"".join(buttons)}</div>'


def fitted(catalog: Catalog, name: str, title: str, value: Any) -> Any:
    """A field's value for another model: a class or a layer that it has, too; a text, but no other model's example."""
    if name in NOTHING:
        return value if value in dict(_labels(catalog, "", title)).values() else ""
    if name == "layer":
        return value if value <= last_layer(catalog, title) else Question.layer
    known = {other for entry in catalog.entries for other in (*entry.begun_with.values(), "")}
    own = catalog.entry(title).begun_with.values()
    return next(iter(own), "") if value in known and value not in own else value


def picture(limits: Limits, value: str) -> gr.Textbox:
    """What is asked about: a file that the page's script reads into a hidden text, or an example."""
    gr.HTML(
        "<label class='drop'><input type='file' accept='image/*' id='picture-file' "
        f"data-bytes='{limits.picture_bytes}' data-pixels='{limits.picture_pixels}'>"
        f"<img alt='The picture' src='{source(value)}'>"
        "<span><b>Choose a picture</b>, or drop or paste one here. It goes to this page’s server, which saves no file."
        f"</span></label><div class='thumbs' role='group' aria-label='Examples'>{thumbnails()}</div>",
        elem_id="picture",
        js_on_load=None,
        apply_default_css=False,
    )
    return gr.Textbox(value, label="Picture", visible="hidden", elem_id="picture-data", lines=1, max_lines=1)


def classes(catalog: Catalog, name: str, label: str, title: str) -> gr.Dropdown:
    """The target or the contrast, one of a model's classes."""
    return gr.Dropdown(_labels(catalog, NOTHING[name], title), value="", label=label, min_width=120)


def _labels(catalog: Catalog, nothing: str, title: str) -> list[tuple[str, str]]:
    names = getattr(_configuration(catalog, title), "id2label", {})
    return [(nothing, ""), *((name, name) for _, name in sorted(names.items()))]


def last_layer(catalog: Catalog, title: str) -> int:
    """The end of the slider for a model's layers."""
    layers = getattr(_configuration(catalog, title), "num_hidden_layers", 1)
    return max(layers - 1, 1)  # a slider needs two ends


def _configuration(catalog: Catalog, title: str) -> Any:
    """A model's configuration; None if it cannot be loaded now, which the answer will say."""
    try:
        return catalog.get(title)[0].config
    except RefusedError:
        return None


def filled(catalog: Catalog, name: str, question: Question) -> Any:
    """What a link puts into a field."""
    value = getattr(question, name)
    if name == "other_model":
        return value or question.model
    return placed(catalog, question.kind, name, question.model, value)


def placed(catalog: Catalog, kind: str, name: str, title: str, value: Any) -> Any:
    """A field with a value, and with what can be chosen of this model."""
    if kind in ("sentence", "image") and name in NOTHING:
        return gr.update(choices=_labels(catalog, NOTHING[name], title), value=value)
    if name == "layer":
        last = last_layer(catalog, title)
        return gr.update(maximum=last, value=min(value, last))
    return list(value) if isinstance(value, tuple) else value
