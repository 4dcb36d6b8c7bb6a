"""`rlkit view` as a command: its address, its end, and who can reach it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.pages.view import LOOPBACK, listen, view
from tests.pages.server import Client, refuses
from tests.pages.written import write_run

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def command(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    run = write_run(tmp_path / "r", {0: 0.1, 4: 0.5})
    with subprocess.Popen(
        [sys.executable, "-m", "rlkit", "view", str(run)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        yield started
        started.kill()


def test_the_command_prints_an_address_serves_it_and_ends_in_one_line(command):
    line = command.stdout.readline()
    found = re.fullmatch(
        r"1 run at http://127\.0\.0\.1:(\d+)/([\w-]{32})/ \(Ctrl-C ends this\)\n", line
    )
    assert found is not None, line
    client = Client(int(found[1]))
    assert client.send(f"/{found[2]}/0/report.html").status == 200
    assert client.send("/0/report.html").status == 404
    command.send_signal(signal.SIGINT)
    assert command.stdout.read() == "Ended.\n"
    assert command.wait() == 0


def test_only_the_loopback_listens():
    with listen(0) as listening:
        listening.listen()
        host, port = listening.getsockname()
        assert host == LOOPBACK
        own = set()
        with contextlib.suppress(socket.gaierror):  # a host whose own name nobody knows
            own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
        for address in own - {LOOPBACK, "::1"}:
            if ":" not in str(address) and not str(address).startswith("127."):
                assert refuses(str(address), port)


def test_a_port_that_is_taken_is_told(tmp_path):
    with listen(0) as listening, pytest.raises(UserError, match="cannot be used"):
        listen(listening.getsockname()[1])
    with pytest.raises(UserError, match="cannot be used"):
        listen(99_999)


def test_what_holds_no_run_is_told_before_anything_is_served(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        view([str(tmp_path)])


def test_without_the_server_the_user_is_told_what_to_install(tmp_path, monkeypatch):
    run = write_run(tmp_path / "r", {0: 0.1})
    monkeypatch.setattr("rlkit.pages.view.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install starlette"):
        view([str(run)])
