"""What the page and the API both call: from raw values to an answer, under the rate limit."""

import base64
import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from io import BytesIO
from typing import Any

import gradio as gr

from hf_mambalrp.space.answer import Answers
from hf_mambalrp.space.catalog import ALL_PACKAGED, Catalog, Entry
from hf_mambalrp.space.limits import Limits, RateLimit, RefusedError, client_of
from hf_mambalrp.space.pictures import content, file_name
from hf_mambalrp.space.question import SENTENCES, Question
from hf_mambalrp.space.take_away import FILES
from hf_mambalrp.space.views import notice, view

WRITTEN = 16
"""Answers kept as HTML: a tab opens for everybody with the same one, and writing it takes up to 40 milliseconds."""


class App:
    """One app: its models, its limits, its answers, and its count of every client's requests."""

    def __init__(self, entries: Sequence[Entry] = ALL_PACKAGED, limits: Limits | None = None) -> None:
        self.catalog, self.limits = Catalog(entries), limits or Limits()
        self.answers = Answers(self.catalog, self.limits)
        self.written = lru_cache(maxsize=WRITTEN)(partial(view, self.answers))
        self.rate = RateLimit(self.limits.requests_a_minute)
        self.queued: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": self.limits.at_once}
        """What gradio is told of all that asks a model: it waits in one queue."""

    def asked(self, request: Any, **values: Any) -> Question:
        """Count a request and read its question. RefusedError: too many, or a value that is not allowed."""
        self.rate.take(client_of(request))
        return Question.asked(self.catalog, self.limits, **values)

    def shown(self, request: Any, **values: Any) -> tuple[str, str, str]:
        """Return HTML, query string and Python for the page; what is refused is said in the HTML."""
        try:
            return self.answered(self.asked(request, **values))
        except RefusedError as error:
            return notice(str(error)), "", ""

    def answered(self, question: Question) -> tuple[str, str, str]:
        """As :meth:`shown`, for a question that was read."""
        try:
            return self.written(question), question.query(self.catalog), question.python(self.catalog)
        except RefusedError as error:
            return notice(str(error)), "", ""
        except gr.Error as error:  # of ZeroGPU: a visitor's time on the GPU is used up, or there is none
            return notice(error.message), "", ""

    def downloaded(self, request: Any, form: str, **values: Any) -> str:
        """Return name, type and base64 content of the answer as a file, in JSON. gr.Error: what is refused."""
        question = _or_gradio_error(lambda: self.asked(request, **values))
        result = _or_gradio_error(lambda: self.answers.answer(question)).result
        if form == "picture":
            return _file(file_name(question.picture), "application/octet-stream", content(question.picture))
        if form == "png":
            drawn = BytesIO()
            result.plot(**_drawing(question)).savefig(drawn, format="png", dpi=150, bbox_inches="tight")
            data = drawn.getvalue()
        elif form == "json":
            data = result.to_json(indent=1).encode()
        else:
            data = result.to_html(
                **({} if question.kind in ("attention", "image") else {"level": question.level})
            ).encode()
        return _file(f"explanation.{form}", FILES[form], data)

    def described(self, request: Any, **values: Any) -> dict[str, Any]:
        """Return the numbers of an answer for the API. gr.Error: what is refused."""
        question = _or_gradio_error(lambda: self.asked(request, **values))
        found = _or_gradio_error(lambda: self.answers.answer(question))
        return {"model": question.model, "probabilities": dict(found.chances), "result": found.result.to_dict()}


def _file(name: str, media_type: str, data: bytes) -> str:
    return json.dumps([name, media_type, base64.b64encode(data).decode()])


def _drawing(question: Question) -> dict[str, Any]:
    if question.kind == "image":
        return {}
    if question.kind == "attention":
        return {"layer": question.layer}
    layers = {"per_layer": True} if question.kind in SENTENCES and question.view == "layers" else {}
    return {"level": question.level, **layers}


def _or_gradio_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RefusedError as error:
        raise gr.Error(str(error), print_exception=False) from error
