"""What a visitor takes away from an answer: its Python, its link, its files."""

from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode

from hf_mambalrp.space.limits import RefusedError
from hf_mambalrp.space.question import Question

FILES = {"html": "text/html", "json": "application/json", "png": "image/png"}
PYTHON, LINK = "The Python that reproduces this", "Link to what is on the screen"


def take_away(kind: str, link: str, python: str, asked: Mapping[str, Any]) -> str:
    """The HTML below an answer; none where there is no answer.

    It is no component of gradio's, of which a browser that opens the page has enough to do. The page's script makes the
    link, as the server knows its query string alone, and asks for the files.
    """
    if not python:
        return ""
    # No link holds a visitor's picture; the page has it, and sends it with what else is asked.
    known = link or urlencode({"kind": kind, **{name: value for name, value in asked.items() if name != "picture"}})
    names = {form: form.upper() for form in FILES} | ({"picture": "the picture"} if kind == "image" else {})
    buttons = "".join(
        f'<button type="button" id="{kind}-{form}" data-form="{form}">Download {name}</button>'
        for form, name in names.items()
    )
    return (
        f'<details class="hfm more" data-asked="{escape(known)}"{"" if link else " data-file"}>'
        "<summary>Take it with you: Python, link, files</summary>"
        f'<div class="code" id="{kind}-python"><label for="{kind}-says">{PYTHON}</label>'
        f'<textarea id="{kind}-says" readonly spellcheck="false" rows="9">{escape(python)}</textarea>'
        f"{_copy(PYTHON)}</div>"
        f'<div class="code" id="{kind}-link"><label for="{kind}-leads">{LINK}</label>'
        f'<input id="{kind}-leads" readonly>{_copy(LINK)}</div>'
        f'<div class="chips">{buttons}</div></details>'
    )


def _copy(what: str) -> str:
    return f'<button type="button" aria-label="Copy: {what}">Copy</button>'


def read_query(query: str) -> dict[str, str]:
    """What a query string says of a question; the rest of it is not ours."""
    fields = Question.__dataclass_fields__
    return {name: value for name, value in parse_qsl(query, keep_blank_values=True) if name in fields}


def read_wanted(wanted: str) -> tuple[str, dict[str, str]]:
    """The file that the page's script wants, and the question: "form query picture". RefusedError: not so."""
    form, _, rest = wanted.partition(" ")
    query, _, picture = rest.partition(" ")
    asked = read_query(query)
    if form not in FILES and not (form == "picture" and asked.get("kind") == "image"):
        raise RefusedError(f"The files of an answer are {', '.join(FILES)}.")
    return form, {**asked, **({"picture": picture} if picture else {})}
