"""What a visitor may ask for: sizes, rates and times. The page and the API go through the same checks."""

import json
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import ip_address
from threading import Lock, local
from typing import Any, Self

from torch.overrides import TorchFunctionMode

from hf_mambalrp.errors import OptionError


class RefusedError(Exception):
    """What a visitor asked for is not done; the message is a sentence for the visitor."""


@dataclass(frozen=True)
class Limits:
    """Every limit of the app; the Space's README.md says what each one bounds."""

    characters: int = 2000
    tokens: int = 512
    document_characters: int = 20_000
    document_tokens: int = 8192
    attention_tokens: int = 96
    new_tokens: int = 24
    picture_pixels: int = 2**22
    body_bytes: int = 2**19
    requests_a_minute: int = 60
    seconds: int = 30
    at_once: int = 2
    waiting: int = 96

    @property
    def picture_bytes(self) -> int:
        """Of the file of a picture, which is base64 in the body of a request, among what else is asked."""
        return max(0, self.body_bytes - 2**13) * 3 // 4

    @classmethod
    def from_environment(cls) -> "Limits":
        """Read ``SPACE_<NAME>`` for every field. OptionError: not a whole number of at least 1."""
        variables = {f.name: f"SPACE_{f.name.upper()}" for f in fields(cls)}
        given = {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}
        for name, value in given.items():
            if not value.isdecimal() or int(value) < 1:
                raise OptionError(f"{variables[name]}={value} is not allowed; give a whole number of at least 1.")
        return cls(**{name: int(value) for name, value in given.items()})


class Deadline(TorchFunctionMode):
    """Cancels what runs inside, between two operations of torch, once its time is over.

    Inside another whose time is over first it does nothing: a look at the clock takes as long as a small operation.
    """

    running = local()
    """The end of the one that runs in this thread."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.end = seconds, time.monotonic() + seconds
        self.before: float = math.inf

    def __enter__(self) -> Self:
        """Begin to look at the clock."""
        self.before = getattr(self.running, "end", math.inf)
        if self.end < self.before:
            self.running.end = self.end
            super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave that to the one around this, if there is one."""
        if self.end < self.before:
            self.running.end = self.before
            super().__exit__(*error)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation of torch, if there is time."""
        if time.monotonic() > self.end:
            raise RefusedError(
                f"This took longer than {self.seconds:.0f} seconds and was stopped. "
                "Try a shorter text, a smaller picture, fewer generated tokens, or the method mambalrp."
            )
        return function(*args, **(kwargs or {}))


class RateLimit:
    """At most so many requests a minute from each client, refilled evenly; it remembers a bounded number of clients."""

    CLIENTS = 10_000

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.a_minute, self.clock, self.lock = a_minute, clock, Lock()
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count one request. RefusedError: the client has none left."""
        now, a_second = self.clock(), self.a_minute / 60
        with self.lock:
            left, before = self.left.pop(client, (float(self.a_minute), now))
            left = min(self.a_minute, left + (now - before) * a_second)
            self.left[client] = (left - 1 if left >= 1 else left, now)
            if len(self.left) > self.CLIENTS:
                self.left.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) / a_second)
            raise RefusedError(
                f"That is more than {self.a_minute} requests a minute. "
                f"Please try again in {seconds} second{'s' * (seconds > 1)}."
            )


class BodyLimit:
    """ASGI middleware: an HTTP request with a longer body gets 413, whether or not it declares its length.

    Gradio's route for uploads gets 403: nothing here takes a file, and what it stores is neither counted nor deleted.
    """

    IGNORED = 2**26
    """Bytes that are read and dropped, so that the client gets to read the answer; behind them the connection ends."""

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the body, and pass it on if it is short enough."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        body, size, more = bytearray(), 0, True
        while more and size <= self.IGNORED:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size += len(part)
            if size <= self.most:
                body += part
            more = message.get("more_body", False)
        if size > self.most:
            await self.refuse(
                send, 413, f"The request is larger than {self.most} bytes. Send a shorter text, or a smaller picture."
            )
            return
        if scope["path"].rstrip("/").endswith("/upload"):
            await self.refuse(send, 403, "Files cannot be uploaded here. Send text; a picture goes in as base64.")
            return
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    async def refuse(self, send: Any, status: int, sentence: str) -> None:
        """Answer with a sentence."""
        detail = json.dumps({"detail": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(detail)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": detail})


def client_of(request: Any) -> str:
    """Address that a request is counted under. On a Space the connection is the proxy's, and its header says whose.

    Every proxy writes the address it was called from behind what it was given, so the last public one is the client's;
    what stands before it was sent by the client and may be anything.
    """
    if request is None or request.client is None:
        return "local"
    forwarded = request.headers.get("x-forwarded-for", "") if os.environ.get("SPACE_ID") else ""
    return next(filter(_public, map(str.strip, reversed(forwarded.split(",")))), str(request.client.host))


def _public(address: str) -> bool:
    try:
        return ip_address(address).is_global
    except ValueError:
        return False
