"""The inputs that tabs have in common, and what a model or a link puts into them."""

from typing import Any

import gradio as gr

from hf_mambalrp.space.catalog import Catalog
from hf_mambalrp.space.limits import Limits, RefusedError
from hf_mambalrp.space.pictures import source, thumbnails
from hf_mambalrp.space.question import LEVELS, SHORT, Question
from hf_mambalrp.viz.method_names import method_name

NOTHING = {"target": "what it says", "contrast": "nothing"}
"""The first choice of a menu of classes."""


def text(limits: Limits, label: str, value: str, lines: int) -> gr.Textbox:
    """What is asked about."""
    # A paste that is far too long is cut here, so that no request of the page outgrows the limit of its body.
    return gr.Textbox(value, label=label, lines=lines, max_lines=lines + 6, max_length=5 * limits.document_characters)


def model(models: list[str], label: str = "Model") -> gr.Dropdown:
    """Which model is asked; not shown where there is one."""
    return gr.Dropdown(models, value=models[0], label=label, min_width=120, visible=len(models) > 1)


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


def shown_with_parts(view: gr.Radio, rule: gr.Radio) -> None:
    """Show the rule in the view of parts alone."""
    view.change(lambda name: gr.update(visible=name == "parts"), view, rule, api_visibility="private", queue=False)


def begun_with(catalog: Catalog, title: str, at: int = 0) -> str:
    """A text to begin with that fits a model; "" of one without."""
    texts = [*catalog.entry(title).begun_with.values()]
    return texts[at % len(texts)] if texts else ""


def chips(catalog: Catalog, models: list[str]) -> list[gr.Button]:
    """A button for every example of the first model, and hidden ones for what another has more."""
    names = [*catalog.entry(models[0]).begun_with]
    most = max(len(catalog.entry(title).begun_with) for title in models)
    with gr.Row(elem_classes="chips"):
        return [
            gr.Button(*names[at : at + 1] or [""], size="sm", variant="secondary", visible=at < len(names))
            for at in range(most)
        ]


def fitted(catalog: Catalog, count: int, title: str, text: str) -> list[Any]:
    """What a model brings with it: a text of its own where another's example stands, and the names of its examples."""
    known = {other for entry in catalog.entries for other in (*entry.begun_with.values(), "")}
    own = catalog.entry(title).begun_with
    names = [*own, *[""] * count][:count]
    new = next(iter(own.values()), "") if text in known and text not in own.values() else text
    return [new, *(gr.update(value=name, visible=bool(name)) for name in names)]


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
    if name == "other_model":
        return value or question.model
    return list(value) if isinstance(value, tuple) else value
