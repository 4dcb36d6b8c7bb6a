"""Who may ask the live server what: this machine's browser, with the token, to read."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN_HOST = re.compile(rb"(127\.0\.0\.1|localhost):\d{1,5}")
"""A page elsewhere whose name resolves to this machine sends its own name instead."""
PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+/?")
"""What an address of the server looks like; nothing in it is escaped."""
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The policy of what is no page."""
POLICY = "content-security-policy"


class Guard:
    """An ASGI application around another one, which sees the address without the token.

    The answer is 403 to a foreign Host header, 404 to every address without the token, 405 to what
    is no GET. Every answer has the headers HEADERS and a content-security policy.
    """

    def __init__(self, app: App, token: str) -> None:
        self.app = app
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if refused is not None:
            await answer(send, *refused)
            return
        inner = "/" + scope["path"].split("/", 2)[2]

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": with_headers(message.get("headers", ()))}
            await send(message)

        await self.app({**scope, "path": inner, "raw_path": inner.encode()}, receive, guarded)

    def _refused(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        if len(hosts) != 1 or not OWN_HOST.fullmatch(hosts[0]):
            return 403, "ask for 127.0.0.1 or localhost, with the port", {}
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode(), self.token):
            return 404, "not found", {}
        if not rest and not scope["path"].endswith("/"):
            return 307, "", {"location": f"{first}/"}
        if not self._is_plain(scope):
            return 404, "not found", {}
        if scope["method"] != "GET":
            return 405, "only GET", {"allow": "GET"}
        return None

    def _is_plain(self, scope: Scope) -> bool:
        path = scope["path"]
        raw = scope.get("raw_path") or path.encode()
        steps_up = any(part in (".", "..") for part in path.split("/"))
        return PATH.fullmatch(path) is not None and b"%" not in raw and not steps_up


def with_headers(given: Any) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those of the server, its own policy first."""
    found = {POLICY: NOTHING, **HEADERS}
    own = [(name.lower(), value) for name, value in given]
    names = {name for name, _ in own}
    return [*own, *((k.encode(), v.encode()) for k, v in found.items() if k.encode() not in names)]


async def answer(send: Send, status: int, text: str, headers: dict[str, str]) -> None:
    """Answer with one line of text."""
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    body = f"{text}\n".encode() if text else b""
    given += [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": with_headers(given)})
    await send({"type": "http.response.body", "body": body})
