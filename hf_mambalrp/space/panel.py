"""One tab of the page: its form, its answer, and what to take away from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from hf_mambalrp.space import inputs
from hf_mambalrp.space.limits import RefusedError
from hf_mambalrp.space.pictures import PICTURES
from hf_mambalrp.space.serve import App
from hf_mambalrp.space.take_away import read_query, take_away
from hf_mambalrp.space.views import notice

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
    """One tab: named inputs, and the answer beside them.

    It has few components and few events. For every event of any tab the browser goes through the components of all of
    them before it shows anything.
    """

    def __init__(
        self,
        app: App,
        kind: str,
        models: Sequence[str],
        fields: Mapping[str, Any],
        button: gr.Button,
        chips: gr.HTML | None = None,
    ) -> None:
        self.app, self.kind, self.models, self.button, self.chips = app, kind, models, button, chips
        self.fields = {name: field for name, field in fields.items() if field is not None}

    def answer_here(self) -> None:
        """Place the answer, which asks what the link of the page asks when the page opens with this tab."""
        hint = f"<div class='hfm'><p class='how'>Press “{self.button.value}” to see {SHOWS[self.kind]}.</p></div>"
        placed = f"explorer.placed('{self.kind}', trigger)"
        where: Any = {"elem_id": f"{self.kind}-answer", "min_height": 160, "apply_default_css": False}
        self.html = gr.HTML(hint, js_on_load=placed, **where)

    def wire(self, *, live: tuple[str, ...] = (), released: tuple[gr.Slider, ...] = ()) -> None:
        """Connect the button, Enter in every text, live fields, sliders that are let go, another model and the link."""
        given = [*self.fields.values()]
        shown: Any = {"show_progress_on": self.html, "api_visibility": "private", **self.app.queued}
        pressed = [self.button.click, *(field.submit for field in given if isinstance(field, gr.Textbox))]
        changed = [inputs.chosen(self.fields[name]) for name in live if name in self.fields]
        triggers = [*pressed, *changed, *(slider.release for slider in released)]
        gr.on(triggers, self._show, given, self.html, trigger_mode="always_last", **shown)
        self.html.apply(self._open, self.html, [*given, self.html], js="() => location.hash", **shown)
        if "model" in self.fields and "model" not in live:
            brought = [self.fields[name] for name in inputs.OF_MODEL[self.kind]]
            outputs = [*brought, *([self.chips] if self.chips else []), self.html]
            inputs.chosen(self.fields["model"])(self._fit, given, outputs, trigger_mode="always_last", **shown)

    def _show(self, request: gr.Request, *values: Any) -> str:
        return self._answer(request, dict(zip(self.fields, values, strict=True)))

    def _answer(self, request: gr.Request, asked: Mapping[str, Any]) -> str:
        html, link, python = self.app.shown(request, kind=self.kind, **asked)
        return html + take_away(self.kind, link, python, asked)

    def _open(self, link: str, request: gr.Request) -> list[Any]:
        """Answer what the link of the page asks, and fill the fields that it names, of another model all.

        The others hold what is asked already, and what is typed meanwhile stays.
        """
        given = read_query(link.removeprefix("#"))
        asked = {**self._first(), **given} if given.get("kind", self.kind) == self.kind else given
        try:
            question = self.app.asked(request, **asked)
        except RefusedError as error:
            return [*[gr.skip()] * len(self.fields), notice(str(error))]
        html, link, python = self.app.answered(question)
        named = self.fields if "model" in given else given
        filled = [
            inputs.filled(self.app.catalog, name, question) if name in named else gr.skip() for name in self.fields
        ]
        return [*filled, html + take_away(self.kind, link, python, asked)]

    def _first(self) -> dict[str, str]:
        """What is asked where the link does not say it."""
        if self.kind == "image":
            return {"kind": self.kind, "picture": next(iter(PICTURES))}
        return {"kind": self.kind, "text": inputs.begun_with(self.app.catalog, self.models[0])}

    def _fit(self, request: gr.Request, *values: Any) -> list[Any]:
        """Another model brings its own examples, classes and layers, and is asked."""
        given, catalog = dict(zip(self.fields, values, strict=True)), self.app.catalog
        model, names = given["model"], inputs.OF_MODEL[self.kind]
        asked = given | {name: inputs.fitted(catalog, name, model, given[name]) for name in names}
        brought = [
            # Of a text that stays, what is typed meanwhile stays, too.
            gr.skip() if name == "text" and asked[name] == given[name]
            else inputs.placed(catalog, self.kind, name, model, asked[name])
            for name in names
        ]  # fmt: skip
        chips = [inputs.chips_html(catalog, model)] if self.chips else []
        return [*brought, *chips, self._answer(request, asked)]
