"""The page: a tab for every kind of question, each a form, an answer, and what to take away from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from hf_mambalrp.methods import METHODS
from hf_mambalrp.space import api, serve
from hf_mambalrp.space.catalog import LOADED, entry, titles
from hf_mambalrp.space.examples import DOCUMENT, EXAMPLES, PROMPTS
from hf_mambalrp.space.limits import LIMITS, RefusedError
from hf_mambalrp.space.question import TARGET, TASKS, WHOLE_GRADIENT, Question
from hf_mambalrp.space.views import method_title, notice
from hf_mambalrp.viz.colors import DARK, LIGHT
from hf_mambalrp.viz.html import STYLE

HERE = Path(__file__).parent
CSS = (HERE / "style.css").read_text(encoding="utf-8").replace("LIGHT", LIGHT.css()).replace("DARK", DARK.css())
HEAD = f"<style>{STYLE}{CSS}</style><script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"
THEME = gr.themes.Default(primary_hue="slate", neutral_hue="slate", font=["system-ui", "sans-serif"]).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    button_primary_background_fill="*neutral_900",
    button_primary_background_fill_hover="*neutral_700",
    button_primary_background_fill_dark="*neutral_100",
    button_primary_background_fill_hover_dark="*neutral_300",
    button_primary_text_color="white",
    button_primary_text_color_dark="*neutral_900",
)
MODEL: Any = {"concurrency_id": "model", "concurrency_limit": LIMITS.at_once}
NOTHING = {"target": "what it says", "contrast": "nothing"}
"""The first choice of a menu of classes."""
SHOWS = {
    "sentence": "what the model says, and which words speak for and against it",
    "next": "how the model goes on, and which words made it do so",
    "generation": "what the model writes, and which words led to each part of it",
    "attention": "from which words every word takes something up, layer by layer",
    "document": "what the model says, and the passages that mattered most",
}
"""What an answer will be, in the place where it will be."""
NO_MODEL = (
    "No language model is configured for this Space. Its owner can list one in `models.json`, "
    'with the task `"text-generation"`.'
)


class Panel:
    """One tab: named inputs, the answer beside them, and below it the Python, the link and the files."""

    def __init__(self, kind: str, fields: Mapping[str, Any], button: gr.Button) -> None:
        self.kind, self.fields, self.button = kind, fields, button

    def answer_here(self) -> None:
        """Place the components of the answer."""
        hint = f"<div class='hfm'><p class='how'>Press “{self.button.value}” to see {SHOWS[self.kind]}.</p></div>"
        self.html = gr.HTML(hint, elem_id=f"{self.kind}-answer", min_height=160, apply_default_css=False)
        with gr.Accordion("Take it with you: Python, link, files", open=False, elem_id=f"{self.kind}-more"):
            self.code = self._copied("The Python that reproduces this", "python", lines=9)
            self.link = self._copied("Link to what is on the screen", "link", lines=1)
            with gr.Row(elem_classes="chips"):
                self.files = {
                    form: gr.Button(f"Download {form.upper()}", size="sm", elem_id=f"{self.kind}-{form}")
                    for form in serve.FILES
                }
            self.file = gr.Textbox(visible="hidden", label="File")
            self.query = gr.Textbox(visible="hidden", label="Query")

    def _copied(self, label: str, name: str, lines: int) -> gr.Textbox:
        # Not gr.Code: its colours and its scrolling fail the checks for accessibility.
        copy: Any = {"buttons": ["copy"], "interactive": False, "elem_classes": "code"}
        return gr.Textbox(label=label, lines=lines, max_lines=lines + 9, elem_id=f"{self.kind}-{name}", **copy)

    def wire(self, *, live: tuple[str, ...] = ()) -> None:
        """Connect the button, Enter in every text, and every live field."""
        names, inputs = list(self.fields), list(self.fields.values())

        def show(request: gr.Request, *values: Any) -> tuple[str, str, str]:
            return serve.shown(request, kind=self.kind, **dict(zip(names, values, strict=True)))

        def save(form: str) -> Callable[..., str]:
            def saved(request: gr.Request, *values: Any) -> str:
                return serve.downloaded(request, form, kind=self.kind, **dict(zip(names, values, strict=True)))

            return saved

        self.show: Any = {"fn": show, "inputs": inputs, "outputs": [self.html, self.query, self.code], **MODEL}
        self.show |= {"api_visibility": "private", "show_progress_on": self.html}
        entered = [field.submit for field in inputs if isinstance(field, gr.Textbox)]
        triggers = [self.button.click, *entered, *(self.fields[name].input for name in live)]
        gr.on(triggers, trigger_mode="always_last", **self.show)
        self.query.change(None, self.query, self.link, js="(query) => query ? explorer.link(query) : ''")
        for form, button in self.files.items():
            button.click(save(form), inputs, self.file, api_visibility="private", **MODEL).then(
                None, self.file, None, js="explorer.download"
            )


def build() -> gr.Blocks:
    """Build the page and the API."""
    page: gr.Blocks
    with gr.Blocks(title="Why did the model say that?", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Why did the model say that?</h1><p>Every word gets its share of the score. Blue words (+) speak for "
            "the answer, red words (−) against it; with the biases’ share, all of them sum to the score.</p>",
            elem_id="head",
            apply_default_css=False,
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            panels = [
                panel
                for panel in (_sentence(), _next("next"), _next("generation"), _attention(), _document())
                if panel is not None
            ]
        _open_link(page, tabs, panels)
        api.endpoints()
    # Without api_open=False, gradio has routes that pass by the queue.
    page.queue(max_size=LIMITS.waiting, default_concurrency_limit=LIMITS.at_once, api_open=False)
    return page


def _sentence() -> Panel:
    models = titles(*TASKS["sentence"])
    with gr.Tab("Sentence", id="sentence"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = _text("Your sentence", EXAMPLES["Praise"], lines=3)
            chips = _chips(EXAMPLES)
            button = gr.Button("Explain", variant="primary")
            with gr.Column(elem_classes="options"):
                model = _model(models)
                with gr.Row():
                    target = _classes("target", "Explain the score of", models[0])
                    contrast = _classes("contrast", "rather than", models[0])
                method = _method(tuple(METHODS))
        with gr.Column(scale=6, min_width=300):
            with gr.Row():
                views = [("Words", "words"), ("Layers", "layers"), ("Methods", "methods")]
                view = gr.Radio(views, value="words", label="View", scale=3, min_width=270)
                level = _level()
            compared = gr.CheckboxGroup(
                [(method_title(name), name) for name in METHODS],
                value=list(Question.compared),
                label="Methods to compare",
                visible=False,
            )
            fields = {"model": model, "text": text, "target": target, "contrast": contrast, "method": method}
            panel = Panel("sentence", {**fields, "level": level, "view": view, "compared": compared}, button)
            panel.answer_here()
    live = ("target", "contrast", "method", "level", "view", "compared")
    panel.wire(live=live)
    view.change(lambda v: gr.update(visible=v == "methods"), view, compared, api_visibility="private", queue=False)
    _on_example(chips, text, panel)
    if len(models) > 1:
        model.input(
            lambda title: [_choices(name, title) for name in NOTHING],
            model,
            [target, contrast],
            api_visibility="private",
            **MODEL,
        ).then(**panel.show)
    return panel


def _next(kind: str) -> Panel | None:
    """The next token, or several generated ones."""
    models, generation = titles(*TASKS[kind]), kind == "generation"
    with gr.Tab("Generate" if generation else "Next word", id=kind):
        if not models:
            gr.Markdown(NO_MODEL)
            return None
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=4, min_width=300):
                text = _text("Your prompt", PROMPTS["A capital"], lines=3)
                chips = _chips(PROMPTS)
                button = gr.Button("Generate and explain" if generation else "Explain", variant="primary")
                with gr.Column(elem_classes="options"):
                    fields: dict[str, Any] = {"model": _model(models), "text": text}
                    if generation:
                        most = LIMITS.new_tokens
                        fields["tokens"] = gr.Slider(1, most, value=min(8, most), step=1, label="Tokens to generate")
                        fields["method"] = _method(WHOLE_GRADIENT)
                    else:
                        info = "Empty: what it predicts. A new word begins with a space."
                        fields["target"] = gr.Textbox(label="Explain the next word", info=info, max_length=TARGET)
                        fields["contrast"] = gr.Textbox(label="rather than", max_length=TARGET)
                        fields["method"] = _method(tuple(METHODS))
            with gr.Column(scale=6, min_width=300):
                with gr.Row():
                    if not generation:
                        views = [("Words", "words"), ("Layers", "layers")]
                        fields["view"] = gr.Radio(views, value="words", label="View", scale=3, min_width=200)
                    fields["level"] = _level()
                panel = Panel(kind, fields, button)
                panel.answer_here()
        panel.wire(live=("model", "level") if generation else ("model", "method", "level", "view"))
        _on_example(chips, text, panel)
    return panel


def _attention() -> Panel:
    with gr.Tab("Attention", id="attention"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            models = titles(*TASKS["attention"])
            text = _text("Your sentence", EXAMPLES["Negation"], lines=3)
            button = gr.Button("Show attention", variant="primary")
            with gr.Column(elem_classes="options"):
                model = _model(models)
                layer = gr.Slider(0, _last_layer(models[0]), value=0, step=1, label="Layer")
                kinds = [("Selective scan", "raw"), ("Whole mixer", "unified")]
                attention = gr.Radio(kinds, value="raw", label="Attention of")
        with gr.Column(scale=6, min_width=300):
            fields = {"model": model, "text": text, "layer": layer, "attention": attention}
            panel = Panel("attention", fields, button)
            panel.answer_here()
    panel.wire(live=("attention",))
    layer.release(**panel.show)
    model.input(_slider, model, layer, api_visibility="private", **MODEL).then(**panel.show)
    return panel


def _document() -> Panel:
    with gr.Tab("Document", id="document"), gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=300):
            text = _text("Your document", DOCUMENT, lines=14)
            button = gr.Button("Find what mattered", variant="primary")
            model = _model(titles(*TASKS["document"]))
        with gr.Column(scale=6, min_width=300):
            panel = Panel("document", {"model": model, "text": text}, button)
            panel.answer_here()
    panel.wire(live=("model",))
    return panel


def _text(label: str, value: str, lines: int) -> gr.Textbox:
    # A paste that is far too long is cut here, so that no request of the page outgrows the limit of its body.
    return gr.Textbox(value, label=label, lines=lines, max_lines=lines + 6, max_length=5 * LIMITS.document_characters)


def _model(models: list[str]) -> gr.Dropdown:
    return gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)


def _method(names: tuple[str, ...]) -> gr.Dropdown:
    return gr.Dropdown([(method_title(name), name) for name in names], value="mambalrp", label="Method", min_width=120)


def _level() -> gr.Radio:
    return gr.Radio([("Words", "word"), ("Tokens", "token")], value="word", label="By", scale=2, min_width=160)


def _chips(examples: dict[str, str]) -> list[tuple[gr.Button, str]]:
    with gr.Row(elem_classes="chips"):
        return [(gr.Button(name, size="sm", variant="secondary"), text) for name, text in examples.items()]


def _on_example(chips: list[tuple[gr.Button, str]], text: gr.Textbox, panel: Panel) -> None:
    for chip, example in chips:
        chip.click(lambda example=example: example, None, text, api_visibility="private", queue=False).then(
            **panel.show
        )


def _classes(name: str, label: str, title: str) -> gr.Dropdown:
    return gr.Dropdown(_labels(NOTHING[name], title), value="", label=label, min_width=120)


def _labels(nothing: str, title: str) -> list[tuple[str, str]]:
    names = getattr(_configuration(title), "id2label", {})
    return [(nothing, ""), *((name, name) for _, name in sorted(names.items()))]


def _choices(name: str, title: str, value: str = "") -> Any:
    """The target's or the contrast's choices for a model."""
    return gr.update(choices=_labels(NOTHING[name], title), value=value)


def _last_layer(title: str) -> int:
    layers = getattr(_configuration(title), "num_hidden_layers", 1)
    return max(layers - 1, 1)  # a slider needs two ends


def _slider(title: str, value: int = 0) -> Any:
    return gr.update(maximum=_last_layer(title), value=min(value, _last_layer(title)))


def _configuration(title: str) -> Any:
    """A model's configuration; None if it cannot be loaded now, which the answer will say."""
    try:
        return LOADED.get(entry(title))[0].config
    except RefusedError:
        return None


def _filled(name: str, question: Question) -> Any:
    """What a link puts into a field."""
    value = getattr(question, name)
    if question.kind == "sentence" and name in NOTHING:
        return _choices(name, question.model, value)
    if name == "layer":
        return _slider(question.model, value)
    return list(value) if isinstance(value, tuple) else value


def _open_link(page: gr.Blocks, tabs: gr.Tabs, panels: list[Panel]) -> None:
    """Fill the page from its link when it opens, and answer what it asks."""
    outputs: list[Any] = [tabs]
    for panel in panels:
        outputs += [*panel.fields.values(), panel.html, panel.query, panel.code]

    def opened(link: str, request: gr.Request) -> list[Any]:
        fields = Question.__dataclass_fields__
        given = {name: value for name, value in parse_qsl(link, keep_blank_values=True) if name in fields}
        text = EXAMPLES["Praise"] if "kind" not in given else ""
        refused = ""
        try:
            question = serve.asked(request, **{"text": text, **given})
        except RefusedError as error:
            kind = given.get("kind", "")
            question, refused = Question(kind=kind if kind in TASKS else "sentence"), notice(str(error))
        updates: list[Any] = [gr.update(selected=question.kind)]
        for panel in panels:
            if panel.kind != question.kind:
                updates += [gr.skip()] * (len(panel.fields) + 3)
                continue
            html, query, code = (refused, "", "") if refused else serve.answered(question)
            filled = [gr.skip() if refused else _filled(name, question) for name in panel.fields]
            updates += [*filled, html, query, code]
        return updates

    link = gr.Textbox(visible="hidden", label="Link")
    page.load(opened, link, outputs, js="() => explorer.asked()", api_visibility="private", **MODEL)
