"""`python -m rlkit view RUNS...`: the pages of runs, served to this machine while they train."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence

from rlkit.errors import UserError
from rlkit.pages.figures import Question
from rlkit.pages.site import Site

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
PATIENCE = 1
"""Seconds that answers under way have when the server is ended."""


def view(given: Sequence[str], port: int = 0, question: Question | None = None) -> None:
    """Serve the pages until Ctrl-C. Port 0 is one that is free.

    Raises UserError if there are no runs, if the port is taken or if the server is not installed.
    """
    site = Site(given, question or Question())
    try:
        from uvicorn import Config, Server

        from rlkit.pages.application import application
    except ImportError as error:
        raise UserError(
            f"`view` needs starlette and uvicorn ({error}): pip install starlette uvicorn"
        ) from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with listen(port) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/{token}/"
        count = len(site.folders())
        runs = "1 run" if count == 1 else f"{count} runs"
        print(f"{runs} at {address} (Ctrl-C ends this)", flush=True)
        config = Config(
            application(site, token),
            lifespan="off",
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=PATIENCE,
        )
        try:
            Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print("Ended.")


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
