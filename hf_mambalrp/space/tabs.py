"""The tabs: one for every kind of question that a listed model can answer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from hf_mambalrp.calls.explain_generation import RUNNER_UP
from hf_mambalrp.methods import METHODS
from hf_mambalrp.space import inputs
from hf_mambalrp.space.panel import Panel
from hf_mambalrp.space.pictures import PICTURES
from hf_mambalrp.space.question import (
    MOST_GAMMA,
    PICTURE_METHODS,
    TARGET,
    TASKS,
    WHOLE_GRADIENT,
    WITH_GAMMA,
    Question,
)
from hf_mambalrp.space.serve import App
from hf_mambalrp.viz.method_names import method_name


def place_tabs(app: App) -> None:
    """Place the tabs; one that no listed model can serve is not there."""
    placed: dict[str, Callable[[App, list[str]], None]] = {
        "sentence": _sentence,
        "image": _image,
        "next": partial(_next, kind="next"),
        "generation": partial(_next, kind="generation"),
        "attention": _attention,
        "compare": _compare,
        "document": _document,
    }
    models = {kind: app.catalog.titles(*TASKS[kind]) for kind in placed}
    for kind, place in placed.items():
        if models[kind]:
            place(app, models[kind])


def _sentence(app: App, models: list[str]) -> None:
    with gr.Tab("Sentence", id="sentence"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your sentence", inputs.begun_with(app.catalog, models[0]), lines=3)
            chips = inputs.chips(app.catalog, models[0])
            with gr.Row():
                model = inputs.model(models)
                method = inputs.method(tuple(METHODS))
            button = gr.Button("Explain", variant="primary")
            with gr.Row(elem_classes="options"):
                target = inputs.classes(app.catalog, "target", "Explain the score of", models[0])
                contrast = inputs.classes(app.catalog, "contrast", "rather than", models[0])
        with gr.Column(scale=6, min_width=300):
            with gr.Row(elem_classes="seen"):
                views = [("Words", "words"), ("Layers", "layers"), ("Parts", "parts"), ("Methods", "methods")]
                view = gr.Radio(views, value="words", label="View", scale=3, min_width=270)
                level = inputs.level("sentence")
            rule = inputs.rule()
            compared = gr.CheckboxGroup(
                [(method_name(name), name) for name in METHODS],
                value=list(Question.compared),
                label="Methods to compare",
                visible=False,
            )
            fields: dict[str, Any] = {"model": model, "text": text, "target": target, "contrast": contrast}
            fields |= {"method": method, "level": level, "view": view, "compared": compared, "rule": rule}
            panel = Panel(app, "sentence", models, fields, button, chips)
            panel.answer_here()
    panel.wire(live=("target", "contrast", "method", "level", "view", "compared", "rule"))
    inputs.shown_with(view, {rule: ["parts"], compared: ["methods"]})


def _image(app: App, models: list[str]) -> None:
    with gr.Tab("Picture", id="image"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            picture = inputs.picture(app.limits, next(iter(PICTURES)))
            with gr.Row():
                model = inputs.model(models)
                method = inputs.method(PICTURE_METHODS)
            button = gr.Button("Explain", variant="primary")
            with gr.Column(elem_classes="options"):
                with gr.Row():
                    target = inputs.classes(app.catalog, "target", "Explain the score of", models[0])
                    contrast = inputs.classes(app.catalog, "contrast", "rather than", models[0])
                gamma = gr.Slider(0, MOST_GAMMA, value=Question.gamma, step=0.25, label="Gamma of the convolutions")
        with gr.Column(scale=6, min_width=300):
            fields = {"model": model, "picture": picture, "target": target, "contrast": contrast, "method": method}
            panel = Panel(app, "image", models, {**fields, "gamma": gamma}, button)
            panel.answer_here()
    # The button that resets the slider is no input of it.
    panel.wire(live=("target", "contrast", "method", "gamma"), released=(gamma,))
    inputs.shown_with(method, {gamma: WITH_GAMMA})


def _next(app: App, models: list[str], *, kind: str) -> None:
    """The next token, or several generated ones."""
    generation = kind == "generation"
    with gr.Tab("Generate" if generation else "Next word", id=kind), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your prompt", inputs.begun_with(app.catalog, models[0]), lines=3)
            chips = inputs.chips(app.catalog, models[0])
            with gr.Row():
                fields: dict[str, Any] = {"model": inputs.model(models), "text": text}
                fields["method"] = inputs.method(WHOLE_GRADIENT if generation else tuple(METHODS))
            button = gr.Button("Generate and explain" if generation else "Explain", variant="primary")
            with gr.Column(elem_classes="options"):
                if generation:
                    most = app.limits.new_tokens
                    fields["tokens"] = gr.Slider(1, most, value=min(8, most), step=1, label="Tokens to generate")
                    info = f"Empty: nothing. A token, or {RUNNER_UP}: the likeliest other one at its place."
                    fields["contrast"] = gr.Textbox(label="rather than", info=info, max_length=TARGET)
                else:
                    info = "Empty: what it predicts. A new word begins with a space."
                    fields["target"] = gr.Textbox(label="Explain the next word", info=info, max_length=TARGET)
                    fields["contrast"] = gr.Textbox(label="rather than", max_length=TARGET)
        with gr.Column(scale=6, min_width=300):
            with gr.Row(elem_classes="seen"):
                if not generation:
                    views = [("Words", "words"), ("Layers", "layers"), ("Parts", "parts")]
                    fields["view"] = gr.Radio(views, value="words", label="View", scale=3, min_width=200)
                fields["level"] = inputs.level(kind)
            if not generation:
                fields["rule"] = inputs.rule()
                inputs.shown_with(fields["view"], {fields["rule"]: ["parts"]})
            panel = Panel(app, kind, models, fields, button, chips)
            panel.answer_here()
    panel.wire(live=("level",) if generation else ("method", "level", "view", "rule"))


def _attention(app: App, models: list[str]) -> None:
    with gr.Tab("Attention", id="attention"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your sentence", inputs.begun_with(app.catalog, models[0], at=2), lines=3)
            chips = inputs.chips(app.catalog, models[0])
            model = inputs.model(models)
            button = gr.Button("Show attention", variant="primary")
            with gr.Column(elem_classes="options"):
                layer = gr.Slider(0, inputs.last_layer(app.catalog, models[0]), value=0, step=1, label="Layer")
                kinds = [("Selective scan", "raw"), ("Whole mixer", "unified")]
                attention = gr.Radio(kinds, value="raw", label="Attention of")
        with gr.Column(scale=6, min_width=300):
            fields = {"model": model, "text": text, "layer": layer, "attention": attention}
            panel = Panel(app, "attention", models, fields, button, chips)
            panel.answer_here()
    panel.wire(live=("attention",), released=(layer,))


def _compare(app: App, models: list[str]) -> None:
    """Two questions about one text: of two models, two targets, two methods."""
    with gr.Tab("Compare", id="compare"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your text", inputs.begun_with(app.catalog, models[0]), lines=3)
            chips = inputs.chips(app.catalog, models[0])
            fields: dict[str, Any] = {"text": text}
            for side, name in (("", "first"), ("other_", "second")):
                with gr.Row():
                    fields[f"{side}model"] = inputs.model(models, f"Model, {name}")
                    fields[f"{side}method"] = inputs.method(
                        tuple(METHODS), getattr(Question, f"{side}method"), f"Method, {name}"
                    )
            button = gr.Button("Compare", variant="primary")
            with gr.Column(elem_classes="options"):
                info = "A class, or of a language model the next word. Empty: what the model predicts."
                fields["target"] = gr.Textbox(label="Target, first", info=info, max_length=TARGET)
                info = "Empty: the same as the first."
                fields["other_target"] = gr.Textbox(label="Target, second", info=info, max_length=TARGET)
        with gr.Column(scale=6, min_width=300):
            with gr.Row(elem_classes="seen"):
                fields["level"] = inputs.level("compare")
            panel = Panel(app, "compare", models, fields, button, chips)
            panel.answer_here()
    panel.wire(live=("other_model", "method", "other_method", "level"))


def _document(app: App, models: list[str]) -> None:
    with gr.Tab("Document", id="document"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your document", app.catalog.entry(models[0]).document, lines=14)
            model = inputs.model(models)
            button = gr.Button("Find what mattered", variant="primary")
        with gr.Column(scale=6, min_width=300):
            with gr.Row(elem_classes="seen"):
                level = inputs.level("document")
            panel = Panel(app, "document", models, {"model": model, "text": text, "level": level}, button)
            panel.answer_here()
    panel.wire(live=("model", "level"))
