"""A live server in this process, and requests to it exactly as they are written."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from rlkit.pages.application import application
from rlkit.pages.figures import Question
from rlkit.pages.site import Script, Site
from rlkit.pages.view import LOOPBACK, listen, server_of

TOKEN = "a-token"


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Client:
    """Asks the server at a port."""

    port: int

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/{TOKEN}/"

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path below the token; http.client sends it as it is."""
        return self.send(f"/{TOKEN}/{path}", method, **headers)

    def send(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for a whole path."""
        connection = HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            found = connection.getresponse()
            sent = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, sent, found.read().decode())
        finally:
            connection.close()


@contextmanager
def served(given: Sequence[Path], script: Script | None = None) -> Iterator[Client]:
    """Serve runs from a thread of this process."""
    site = Site([str(path) for path in given], Question(), script)
    with listen(0) as listening:
        server = server_of(application(site, TOKEN))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def refuses(address: str, port: int) -> bool:
    """Whether nothing listens at another address of this machine."""
    with socket.socket() as other:
        other.settimeout(5)
        return other.connect_ex((address, port)) != 0
