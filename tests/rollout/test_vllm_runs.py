"""Whole runs with vLLM beside training: servers with two trainers, and vLLM in its own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.models.embedded import embedded_model_dir
from rlkit.rollout.vllm.client import API_KEY
from tests.cli import SMALL, metrics, run
from tests.end_to_end.test_processes import launch
from tests.rollout.servers import KEY, ServerProcess

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
GRPO = (*SMALL, "algorithm=grpo", "correction=[tis]", "output_dir=out")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    pytest.importorskip("vllm")
    started = ServerProcess(embedded_model_dir(0), tmp_path / "log")
    try:
        started.wait()
        yield started
    finally:
        started.kill()


def assert_trained(folder: Path, processes: int) -> None:
    """The engine follows the policy: after each sync its log-probs are the trainer's."""
    rows = metrics(folder)
    assert len(rows) == 4 and rows[0]["eval/pass@1"] > 0
    for row in rows[1:3]:
        assert row["run/processes"] == processes
        assert row["off_policy/engine_difference_max"] < 1e-3


def test_two_trainers_share_a_server(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first talks to it, and both train what one would: the first step's responses are
    those of one trainer."""
    monkeypatch.setenv(API_KEY, KEY)
    chosen = ("rollout=vllm_server", f'rollout.addresses=["{server.address}"]')
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    alone = run(*GRPO, *chosen, cwd=one, env={API_KEY: KEY})
    assert alone.status == 0, alone.err
    done = launch("rlkit.run", *GRPO, *chosen, cwd=two)
    assert done.status == 0, done.err
    assert_trained(two / "out", processes=2)
    first = "out/completions/step-1.jsonl"
    assert (two / first).read_text() == (one / first).read_text()


def test_vllm_generates_in_a_process_of_its_own_while_training_runs(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    chosen = ("rollout=vllm", "rollout.kv_cache_gb=0.1", "rollout.mode=ahead")
    done = run(*GRPO, *chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    rows = metrics(tmp_path / "out")
    assert [row["off_policy/staleness_max"] for row in rows[1:3]] == [0, 1]


def test_two_trainers_have_a_vllm_each_in_processes_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    chosen = ("rollout=vllm", "rollout.kv_cache_gb=0.1", "rollout.mode=ahead")
    done = launch("rlkit.run", *GRPO, *chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    assert metrics(tmp_path / "out")[2]["off_policy/staleness_max"] == 1
