"""What a browser needs to show the page: compressed once, kept for good, and asked for as soon as the page begins."""

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import brotli
import gradio as gr

FRONTEND = Path(gr.__file__).parent / "templates" / "frontend"
ASSET = re.compile(r"/assets/[\w-]+\.(?:js|css)")
"""The path of one of gradio's scripts and styles, whose names have hashes of what is in them."""
FOR_GOOD = (b"cache-control", b"public, max-age=31536000, immutable")
SHEET: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/css; charset=utf-8"), FOR_GOOD],
}
BEGIN, END = "<head>", "</head>"
WANTED = r"(?<!example:\(\)=>\w\(\(\)=>)"
"""Not what shows a component's value in a table of examples, of which the page has none."""


class Assets:
    """ASGI middleware: gradio's scripts and styles are compressed once, not for every visitor, and named early.

    The first script of the page loads others, which load others: three rounds, each of which waits for the one before.
    What the components of the page need is known, so the head of the page names it, and one round is left. The styles
    are one file: every request takes longer than what it brings.
    """

    def __init__(self, app: Any, types: Iterable[str]) -> None:
        self.app, self.kept = app, dict[str, tuple[dict[str, Any], bytes]]()
        files = needed(types)
        sheets = [file for file in files if file.endswith(".css")]
        self.sheet = b"".join((FRONTEND / "assets" / file).read_bytes() + b"\n" for file in sheets)
        self.sheet_path = f"/assets/page-{sha256(self.sheet).hexdigest()[:8]}.css"
        begin = [
            f"<link rel='modulepreload' crossorigin href='./assets/{file}'>" for file in files if file not in sheets
        ]
        # gradio's scripts load a sheet unless there is a link to it; one that is disabled loads nothing.
        begin += [f"<link rel='stylesheet' disabled href='./assets/{file}'>" for file in sheets]
        self.begin = "".join([BEGIN, *begin]).encode()
        self.end = f"<link rel='stylesheet' crossorigin href='.{self.sheet_path}'>{END}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request for the page or for an asset, and pass on the rest."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
        elif scope["path"] == "/":
            await self.page(scope, receive, send)
        elif scope["path"] == self.sheet_path and not _takes_brotli(scope):
            await _sent(send, *_sized(SHEET, self.sheet))
        elif ASSET.fullmatch(scope["path"]) and _takes_brotli(scope):
            await self.asset(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the page, whose head names what it needs."""
        start, body = await self.answered(scope, receive)
        body = body.replace(BEGIN.encode(), self.begin, 1).replace(END.encode(), self.end, 1)
        await _sent(send, *(_compressed(start, body, quality=4) if _takes_brotli(scope) else _sized(start, body)))

    async def asset(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with what is kept, of which there is no more than gradio has files."""
        path = scope["path"]
        if path not in self.kept:
            own = path == self.sheet_path
            start, body = (SHEET, self.sheet) if own else await self.answered(scope, receive)
            if start["status"] != 200:
                await _sent(send, start, body)
                return
            kind = [header for header in start["headers"] if header[0] == b"content-type"]
            self.kept[path] = _compressed({**start, "headers": [*kind, FOR_GOOD]}, body, quality=9)
        start, body = self.kept[path]
        await _sent(send, {**start, "headers": [*start["headers"]]}, body)  # what is outside of this adds to the list

    async def answered(self, scope: Any, receive: Any) -> tuple[dict[str, Any], bytes]:
        """How gradio's answer starts, and its whole body."""
        messages: list[dict[str, Any]] = []

        async def take(message: dict[str, Any]) -> None:
            messages.append(message)

        await self.app(scope, receive, take)
        return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


def needed(types: Iterable[str]) -> list[str]:
    """The assets of a page with components of these types, as far as gradio's scripts say.

    Where another gradio writes its scripts otherwise they are fewer, and the page loads as it does without.
    """
    entry = re.search(r"assets/(index-[\w-]+\.js)", (FRONTEND / "index.html").read_text(encoding="utf-8"))
    app = _loaded(entry[1], "Index-") if entry else []
    blocks = _loaded(app[0], "Blocks-") if app else []
    found = dict.fromkeys([*app, *blocks])
    for core in filter(re.compile(r"core-.*\.js").fullmatch, blocks):
        for kind in sorted({*types, "state"}):  # which gradio takes for parameters of the API
            found |= dict.fromkeys(_loaded(core, "", rf"\b{kind}:\{{(.+?\.url\))\}}"))
    return list(found)


def _loaded(script: str, name: str, within: str = "(.+)") -> list[str]:
    """Scripts of this name that a part of another one loads, each before what it needs itself."""
    text = (FRONTEND / "assets" / script).read_text(encoding="utf-8")
    listed, part = re.search(r"m\.f=(\[.*?\])", text), re.search(within, text, re.DOTALL)
    if not listed or not part:
        return []
    files = [file.removeprefix("./") for file in json.loads(listed[1])]
    found = re.findall(rf"{WANTED}import\(.\./({name}[\w-]+\.js).\).{{,40}}?__vite__mapDeps\(\[([\d,]+)\]", part[1])
    return [file for first, needs in found for file in (first, *(files[int(place)] for place in needs.split(",")))]


def _takes_brotli(scope: Any) -> bool:
    return b"br" in dict(scope["headers"]).get(b"accept-encoding", b"")


def _compressed(start: dict[str, Any], body: bytes, quality: int) -> tuple[dict[str, Any], bytes]:
    says = [(b"content-encoding", b"br"), (b"vary", b"Accept-Encoding")]
    return _sized({**start, "headers": [*start["headers"], *says]}, brotli.compress(body, quality=quality))


def _sized(start: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    length = (b"content-length", str(len(body)).encode())
    others = [header for header in start["headers"] if header[0] != b"content-length"]
    return {**start, "headers": [*others, length]}, body


async def _sent(send: Any, start: dict[str, Any], body: bytes) -> None:
    await send(start)
    await send({"type": "http.response.body", "body": body})
