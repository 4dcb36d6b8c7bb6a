"""One server over HTTP: attempts, limits, faults. Without vLLM."""

from __future__ import annotations

import socket
import time

import pytest

from rlkit.errors import UserError
from rlkit.rollout.vllm.client import Server, ServerFault
from tests.rollout.servers import free_port


def test_a_server_that_is_not_there_is_asked_again_with_a_growing_pause() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}", timeout=5, tries=3, backoff=0.2)
    started = time.monotonic()
    with pytest.raises(ServerFault, match="ConnectionRefusedError"):
        server.call("/health")
    assert 0.6 <= time.monotonic() - started < 30


def test_a_dropped_server_is_not_asked_again() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}", timeout=5, tries=3, backoff=9.0)
    server.fault = "it hung"
    with pytest.raises(ServerFault):
        server.call("/health")


def test_a_server_that_never_answers_is_given_up_after_the_limit() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ServerFault, match="TimeoutError"):
            Server(address, timeout=0.3, tries=1, backoff=0).call("/health")
        assert 0.3 <= time.monotonic() - started < 30


def test_a_server_that_is_no_vllm_is_a_fault(web_server: str) -> None:
    server = Server(web_server, timeout=5, tries=1, backoff=0)
    with pytest.raises(ServerFault, match=r"/collective_rpc: status 501"):
        server.worker("rlkit_stale_head")
    with pytest.raises(ServerFault, match="JSONDecodeError"):
        server.call("/")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "here"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is not an address like"):
        Server(address, timeout=1, tries=1, backoff=0)
