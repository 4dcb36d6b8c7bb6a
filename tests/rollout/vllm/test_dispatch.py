"""Jobs over servers that may fail: each is answered exactly once. Without vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rollout.vllm.client import ServerFault
from rlkit.rollout.vllm.dispatch import Dispatch, drop, living, on_each
from tests.cli import run
from tests.rollout.servers import free_port


def test_a_run_whose_servers_all_fail_stops_with_one_line(web_server: str, tmp_path: Path) -> None:
    silent = f"http://127.0.0.1:{free_port()}"
    result = run(
        "rollout=vllm_server",
        f'rollout.addresses=["{web_server}","{silent}"]',
        "rollout.tries=1",
        "output_dir=out",
        cwd=tmp_path,
    )
    assert result.status == 2
    *_, line = result.err.splitlines()
    assert line.startswith(f"rlkit: no vLLM server is left ({web_server}: /collective_rpc: status")
    assert f"{silent}: /collective_rpc: ConnectionRefusedError" in line
    assert "Traceback" not in result.err


class Fake:
    """A server that answers its first jobs with their number and then fails."""

    def __init__(self, name: str, answers: int = 1000) -> None:
        self.address, self.left, self.fault = name, answers, None

    def complete(self, job: int) -> int:
        self.left -= 1
        if self.left < 0:
            raise ServerFault("it died")
        return 10 * job


def fakes(*servers: Fake) -> Any:
    return list(servers)


def test_every_job_is_answered_at_its_place_though_a_server_dies() -> None:
    dying, living_one = Fake("a", answers=2), Fake("b")
    jobs: Any = list(range(20))
    assert Dispatch(jobs).run(fakes(dying, living_one), 3) == [10 * job for job in jobs]
    assert living_one.fault is None


def test_without_a_server_the_reasons_are_told() -> None:
    jobs: Any = list(range(5))
    with pytest.raises(UserError, match=r"no vLLM server is left \(a: it died; b: it died\)"):
        Dispatch(jobs).run(fakes(Fake("a", 1), Fake("b", 1)), 2)


def test_a_call_on_each_drops_those_that_fail() -> None:
    one, two = Fake("a"), Fake("b")

    def call(server: Any) -> None:
        if server is one:
            raise ServerFault("late")

    on_each(fakes(one, two), call)
    assert one.fault == "late" and living(fakes(one, two)) == fakes(two)
    drop(fakes(one)[0], ServerFault("again"))
    assert one.fault == "late", "the first reason stays"
