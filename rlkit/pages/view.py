"""`rlkit view RUNS...`: the pages of runs, served to this machine while they train."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlkit.errors import UserError
from rlkit.interrupts import ended_by_ctrl_c
from rlkit.pages.figures import Question
from rlkit.pages.samples import sample_script
from rlkit.pages.site import Site

if TYPE_CHECKING:
    from uvicorn import Server

    from rlkit.pages.guard import App

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
PATIENCE = 1
"""Seconds that answers under way have when the server is ended."""


def view(given: Sequence[str], port: int = 0, question: Question | None = None) -> None:
    """Serve the pages until Ctrl-C. Port 0 is one that is free.

    Raises UserError if there are no runs, if the port is taken or if the server is not installed.
    """
    site = Site(given, question or Question(), sample_script)
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(
                f"`view` needs {package}, which is not installed: pip install {package}"
            )
    from rlkit.pages.application import application

    token = secrets.token_urlsafe(TOKEN_BYTES)
    with listen(port) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/{token}/"
        count = len(site.folders())
        runs = "1 run" if count == 1 else f"{count} runs"
        print(f"{runs} at {address} (Ctrl-C ends this)", flush=True)
        try:
            with ended_by_ctrl_c():
                server_of(application(site, token)).run(sockets=[listening])
        except KeyboardInterrupt:
            print("Ended.")


def server_of(app: App) -> Server:
    """A server of an application that prints nothing but errors of its own."""
    from uvicorn import Config, Server

    config = Config(
        app,
        lifespan="off",
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    return Server(config)


def listen(port: int) -> socket.socket:
    """A socket on this machine's loopback, which no other machine reaches."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen()  # who is told the address can connect before the server is ready
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"port {port} cannot be used ({error}); leave --port out") from error
    return listening
