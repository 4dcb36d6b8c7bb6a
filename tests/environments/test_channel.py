from __future__ import annotations

import json
import os
import resource
import socket
import threading

import pytest

from rlkit.environments import channel
from rlkit.environments.channel import Channel, Host, Late, Lost, allow_open_files
from rlkit.errors import UserError
from tests.environments.asking import INCREMENT


def answering(*lines: bytes) -> Channel:
    """A channel whose other side reads a request, answers with some bytes, and is gone."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            theirs.recv(1 << 16)
            for line in lines:
                theirs.sendall(line)

    threading.Thread(target=serve, daemon=True).start()
    return Channel(ours)


def test_a_request_is_answered() -> None:
    asked = answering(b'{"value"', b": 1}\n")
    assert asked.ask("f", 1.0, limit=1) == {"value": 1}
    asked.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"{broken}\n",
        b"{",
        b"[1]\n",
        b"3\n",
        b'{"v": 1}\n',
        b'{"value": 1}\n{"value": 2}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_process_that_dies_or_talks_nonsense_is_lost(reply: bytes) -> None:
    with pytest.raises(Lost):
        answering(reply).ask("f", 1.0)


def test_a_reply_without_an_end_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "LARGEST", 1000)
    asked = answering(b'"' + b"a" * 998)
    asked_more = answering(b'"' + b"a" * 1000)
    with pytest.raises(Lost):
        asked_more.ask("f", 60.0)
    with pytest.raises(Lost):  # as its other side is gone
        asked.ask("f", 60.0)


def test_a_process_that_says_nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "GRACE_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(Late):
        Channel(ours).ask("f", 0.1)


def spec(factory: str | None) -> dict[str, object]:
    settings: dict[str, object] = {"factory": factory, "settings": {}, "tools": [], "preload": []}
    return settings | {"memory_mb": None}


def test_a_host_forks_an_episode_and_all_end_with_it() -> None:
    host = Host(spec(f"{INCREMENT}:IncrementEnv"), trusted=True)
    one, two = host.episode(), host.episode()
    assert len({one.pid, two.pid, os.getpid()}) == 3
    request = {"row": {}, "seed": 5, "later": 6, "limit": 5.0}
    text = one.ask("reset", 5.0, **request)
    assert json.dumps(text).startswith('{"value": "Increment the counter by')
    assert two.ask("attribute", 5.0, name="x", arguments=None, limit=5.0)["error"]
    host.close()
    with pytest.raises(Lost):
        two.ask("reset", 5.0, **request)
    one.close()
    two.close()


def test_a_host_that_cannot_start_says_why() -> None:
    with pytest.raises(UserError, match=r"runs nowhere:E did not start; it said: .*nowhere"):
        Host(spec("nowhere:E"), trusted=True).episode()


def test_the_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == (
            65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
