"""The tabs: one for every kind of question."""

from functools import partial
from typing import Any

import gradio as gr

from hf_mambalrp.calls.explain_generation import RUNNER_UP
from hf_mambalrp.methods import METHODS
from hf_mambalrp.space import inputs
from hf_mambalrp.space.examples import DOCUMENT, EXAMPLES, PROMPTS
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

NO_MODEL = (
    "No language model is configured for this Space. Its owner can list one in `models.json`, "
    'with the task `"text-generation"`.'
)


def panels(app: App) -> list[Panel]:
    """Place every tab; one that no model can answer has no panel."""
    placed = (
        _sentence(app),
        _image(app),
        _next(app, "next"),
        _next(app, "generation"),
        _attention(app),
        _document(app),
    )
    return [panel for panel in placed if panel is not None]


def _sentence(app: App) -> Panel:
    models = app.catalog.titles(*TASKS["sentence"])
    with gr.Tab("Sentence", id="sentence"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your sentence", EXAMPLES["Praise"], lines=3)
            chips = inputs.chips(EXAMPLES)
            button = gr.Button("Explain", variant="primary")
            with gr.Column(elem_classes="options"):
                model = inputs.model(models)
                with gr.Row():
                    target = inputs.classes(app.catalog, "target", "Explain the score of", models[0])
                    contrast = inputs.classes(app.catalog, "contrast", "rather than", models[0])
                method = inputs.method(tuple(METHODS))
        with gr.Column(scale=6, min_width=300):
            with gr.Row():
                views = [("Words", "words"), ("Layers", "layers"), ("Parts", "parts"), ("Methods", "methods")]
                view = gr.Radio(views, value="words", label="View", scale=3, min_width=270)
                level = inputs.level()
            rule = inputs.rule()
            compared = gr.CheckboxGroup(
                [(method_name(name), name) for name in METHODS],
                value=list(Question.compared),
                label="Methods to compare",
                visible=False,
            )
            fields = {"model": model, "text": text, "target": target, "contrast": contrast, "method": method}
            fields |= {"level": level, "view": view, "compared": compared, "rule": rule}
            panel = Panel(app, "sentence", fields, button)
            panel.answer_here()
    live = ("target", "contrast", "method", "level", "view", "compared", "rule")
    panel.wire(live=live)
    view.change(lambda v: gr.update(visible=v == "methods"), view, compared, api_visibility="private", queue=False)
    inputs.shown_with_parts(view, rule)
    panel.answer_examples(chips)
    _another_model(panel, model, target, contrast)
    return panel


def _image(app: App) -> Panel | None:
    models = app.catalog.titles(*TASKS["image"])
    if not models:
        return None
    with gr.Tab("Picture", id="image"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            picture = inputs.picture(app.limits, next(iter(PICTURES)))
            picked = gr.Button(visible="hidden", elem_id="picture-picked")
            button = gr.Button("Explain", variant="primary")
            with gr.Column(elem_classes="options"):
                model = inputs.model(models)
                with gr.Row():
                    target = inputs.classes(app.catalog, "target", "Explain the score of", models[0])
                    contrast = inputs.classes(app.catalog, "contrast", "rather than", models[0])
                method = inputs.method(PICTURE_METHODS)
                gamma = gr.Slider(0, MOST_GAMMA, value=Question.gamma, step=0.25, label="Gamma of the convolutions")
        with gr.Column(scale=6, min_width=300):
            fields = {"model": model, "picture": picture, "target": target, "contrast": contrast, "method": method}
            panel = Panel(app, "image", {**fields, "gamma": gamma}, button)
            panel.answer_here()
    panel.wire(live=("target", "contrast", "method", "gamma"))
    picked.click(None, None, picture, js="() => explorer.picture", api_visibility="private").then(**panel.show)
    gamma.release(**panel.show)  # by the button that resets it, which is no input
    method.change(
        lambda name: gr.update(visible=name in WITH_GAMMA), method, gamma, api_visibility="private", queue=False
    )
    _another_model(panel, model, target, contrast)
    return panel


def _another_model(panel: Panel, model: gr.Dropdown, target: gr.Dropdown, contrast: gr.Dropdown) -> None:
    """Another classifier has other classes."""
    model.input(
        lambda title: [inputs.choices(panel.app.catalog, name, title) for name in inputs.NOTHING],
        model,
        [target, contrast],
        api_visibility="private",
        **panel.app.queued,
    ).then(**panel.show)


def _next(app: App, kind: str) -> Panel | None:
    """The next token, or several generated ones."""
    models, generation = app.catalog.titles(*TASKS[kind]), kind == "generation"
    with gr.Tab("Generate" if generation else "Next word", id=kind):
        if not models:
            gr.Markdown(NO_MODEL)
            return None
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=4, min_width=300):
                text = inputs.text(app.limits, "Your prompt", PROMPTS["A capital"], lines=3)
                chips = inputs.chips(PROMPTS)
                button = gr.Button("Generate and explain" if generation else "Explain", variant="primary")
                with gr.Column(elem_classes="options"):
                    fields: dict[str, Any] = {"model": inputs.model(models), "text": text}
                    if generation:
                        most = app.limits.new_tokens
                        fields["tokens"] = gr.Slider(1, most, value=min(8, most), step=1, label="Tokens to generate")
                        info = f"Empty: nothing. A token, or {RUNNER_UP}: the likeliest other one at its place."
                        fields["contrast"] = gr.Textbox(label="rather than", info=info, max_length=TARGET)
                        fields["method"] = inputs.method(WHOLE_GRADIENT)
                    else:
                        info = "Empty: what it predicts. A new word begins with a space."
                        fields["target"] = gr.Textbox(label="Explain the next word", info=info, max_length=TARGET)
                        fields["contrast"] = gr.Textbox(label="rather than", max_length=TARGET)
                        fields["method"] = inputs.method(tuple(METHODS))
            with gr.Column(scale=6, min_width=300):
                with gr.Row():
                    if not generation:
                        views = [("Words", "words"), ("Layers", "layers"), ("Parts", "parts")]
                        fields["view"] = gr.Radio(views, value="words", label="View", scale=3, min_width=200)
                    fields["level"] = inputs.level()
                if not generation:
                    fields["rule"] = inputs.rule()
                    inputs.shown_with_parts(fields["view"], fields["rule"])
                panel = Panel(app, kind, fields, button)
                panel.answer_here()
        panel.wire(live=("model", "level") if generation else ("model", "method", "level", "view", "rule"))
        panel.answer_examples(chips)
    return panel


def _attention(app: App) -> Panel:
    with gr.Tab("Attention", id="attention"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            models = app.catalog.titles(*TASKS["attention"])
            text = inputs.text(app.limits, "Your sentence", EXAMPLES["Negation"], lines=3)
            button = gr.Button("Show attention", variant="primary")
            with gr.Column(elem_classes="options"):
                model = inputs.model(models)
                layer = gr.Slider(0, inputs.last_layer(app.catalog, models[0]), value=0, step=1, label="Layer")
                kinds = [("Selective scan", "raw"), ("Whole mixer", "unified")]
                attention = gr.Radio(kinds, value="raw", label="Attention of")
        with gr.Column(scale=6, min_width=300):
            fields = {"model": model, "text": text, "layer": layer, "attention": attention}
            panel = Panel(app, "attention", fields, button)
            panel.answer_here()
    panel.wire(live=("attention",))
    layer.release(**panel.show)
    model.input(partial(inputs.slider, app.catalog), model, layer, api_visibility="private", **app.queued).then(
        **panel.show
    )
    return panel


def _document(app: App) -> Panel:
    with gr.Tab("Document", id="document"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = inputs.text(app.limits, "Your document", DOCUMENT, lines=14)
            button = gr.Button("Find what mattered", variant="primary")
            model = inputs.model(app.catalog.titles(*TASKS["document"]))
        with gr.Column(scale=6, min_width=300):
            panel = Panel(app, "document", {"model": model, "text": text}, button)
            panel.answer_here()
    panel.wire(live=("model",))
    return panel
