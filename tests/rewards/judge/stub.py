"""A small judge in this process: an HTTP server that notes what it is asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlkit.rewards.judge.reward import Judge
from rlkit.rewards.judge.settings import JudgeConfig

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, JSON or text, headers."""


def length_score(text: str) -> str:
    """What the stand-in says: as many points as the response has letters."""
    response = re.split("Response:\n|Say in", text)[1].strip()
    return f"It is short.\nScore: {min(10, len(response))}"


class Stub:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.say: Callable[[str], str] = length_score
        """The judge's answer to the last message."""
        self.script: list[Reply | None] = []
        """Replies to the next requests for a completion; None = as usual."""
        self.models: Reply = (200, {"data": [{"id": "judge", "root": "org/judge"}]})
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.listed = 0
        self.running = self.most = 0
        """Requests in progress, now and at most."""
        self.until: Callable[[], object] = bool
        """What a request waits for."""
        self._lock = threading.Lock()
        self.address = ""

    @property
    def questions(self) -> list[str]:
        """The last message of each request."""
        return [body["messages"][-1]["content"] for body in self.asked]

    def reply(self, body: dict[str, Any], key: str | None) -> Reply:
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
            planned = self.script.pop(0) if self.script else None
            self.running += 1
            self.most = max(self.most, self.running)
        self.until()
        with self._lock:
            self.running -= 1
        return planned or (200, said(self.say(body["messages"][-1]["content"])))

    def judge(self, **fields: Any) -> Judge:
        """A judge that asks it."""
        settings = {"address": self.address, "backoff": 0.0, **fields}
        return Judge(JudgeConfig.model_validate(settings))


def said(text: str | None) -> dict[str, Any]:
    """A chat completion."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def handler_of(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            assert self.path == "/v1/models", self.path
            stub.listed += 1
            self.answer(*stub.models)

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions", self.path
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            self.answer(*stub.reply(body, self.headers.get("Authorization")))

        def answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            for name, content in (headers or {}).items():
                self.send_header(name, content)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


class Quiet(ThreadingHTTPServer):
    """A client may go away: it gives up what takes too long."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Stub]:
    """A server on a free port."""
    stub = Stub()
    server = Quiet(("127.0.0.1", 0), handler_of(stub))
    stub.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
