"""One tab of the page: its form, its answer, and what to take away from it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from hf_mambalrp.space.inputs import begun_with, fitted
from hf_mambalrp.space.serve import FILES, App

SHOWS = {
    "sentence": "what the model says, and which words speak for and against it",
    "next": "how the model goes on, and which words made it do so",
    "generation": "what the model writes, and which words led to each part of it",
    "attention": "from which words every word takes something up, layer by layer",
    "compare": "what two models, targets or methods make of one text, and where they differ",
    "document": "what the model says, and the passages that mattered most",
    "image": "what the model says, and which places of the picture speak for and against it",
}
"""What an answer will be, in the place where it will be."""


class Panel:
    """One tab: named inputs, the answer beside them, and below it the Python, the link and the files."""

    def __init__(self, app: App, kind: str, fields: Mapping[str, Any], button: gr.Button) -> None:
        self.app, self.kind, self.fields, self.button = app, kind, fields, button

    def answer_here(self) -> None:
        """Place the components of the answer."""
        hint = f"<div class='hfm'><p class='how'>Press “{self.button.value}” to see {SHOWS[self.kind]}.</p></div>"
        self.html = gr.HTML(hint, elem_id=f"{self.kind}-answer", min_height=160, apply_default_css=False)
        with gr.Accordion("Take it with you: Python, link, files", open=False, elem_id=f"{self.kind}-more"):
            self.code = self._copied("The Python that reproduces this", "python", lines=9)
            self.link = self._copied("Link to what is on the screen", "link", lines=1)
            with gr.Row(elem_classes="chips"):
                forms = {form: form.upper() for form in FILES}
                if self.kind == "image":
                    forms["picture"] = "the picture"
                self.files = {
                    form: gr.Button(f"Download {name}", size="sm", elem_id=f"{self.kind}-{form}")
                    for form, name in forms.items()
                }

    def _copied(self, label: str, name: str, lines: int) -> gr.Textbox:
        # Not gr.Code: its colours and its scrolling fail the checks for accessibility.
        copy: Any = {"buttons": ["copy"], "interactive": False, "elem_classes": "code"}
        return gr.Textbox(label=label, lines=lines, max_lines=lines + 9, elem_id=f"{self.kind}-{name}", **copy)

    def wire(self, *, live: tuple[str, ...] = ()) -> None:
        """Connect the button, Enter in every text, and every live field."""
        names, inputs = list(self.fields), list(self.fields.values())

        def show(request: gr.Request, *values: Any) -> tuple[str, str, str]:
            return self.app.shown(request, kind=self.kind, **dict(zip(names, values, strict=True)))

        self.show: Any = {
            "fn": show,
            "inputs": inputs,
            "outputs": [self.html, self.link, self.code],
            **self.app.queued,
        }
        self.show |= {"api_visibility": "private", "show_progress_on": self.html}
        entered = [field.submit for field in inputs if isinstance(field, gr.Textbox)]
        triggers = [self.button.click, *entered, *(self.fields[name].input for name in live)]
        gr.on(triggers, trigger_mode="always_last", **self.show)
        # The server knows the query string alone; the page makes it a link where it stands.
        self.link.change(None, self.link, self.link, js="explorer.link")

    def save_into(self, file: gr.Textbox) -> None:
        """Connect the buttons of files; the page's script saves what comes into ``file``."""

        def saved(request: gr.Request, pressed: gr.EventData, *values: Any) -> str:
            form = next(form for form, button in self.files.items() if button is pressed.target)
            asked = dict(zip(self.fields, values, strict=True))
            return self.app.downloaded(request, form, kind=self.kind, **asked)

        pressed = [button.click for button in self.files.values()]
        gr.on(pressed, saved, [*self.fields.values()], file, api_visibility="private", **self.app.queued)

    def fit_examples(self, chips: list[gr.Button]) -> None:
        """Connect the buttons of examples: each fills in its text and asks; another model has others, and is asked."""
        catalog, model, text = self.app.catalog, self.fields["model"], self.fields["text"]
        private: Any = {"api_visibility": "private", "queue": False}

        def begin(title: str, pressed: gr.EventData) -> str:
            return begun_with(catalog, title, at=next(at for at, chip in enumerate(chips) if chip is pressed.target))

        gr.on([chip.click for chip in chips], begin, model, text, **private).then(**self.show)
        fit = partial(fitted, catalog, len(chips))
        model.input(fit, [model, text], [text, *chips], **private).then(**self.show)
