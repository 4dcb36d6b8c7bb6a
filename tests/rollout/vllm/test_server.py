"""vLLM servers in processes of their own: weights, samples, and what happens when one fails.

The tests share two servers and stand in an order: the last one of those kills them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlkit.errors import UserError
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.vllm.client import API_KEY, Server, ServerFault
from rlkit.rollout.vllm.probe import Evidence
from rlkit.rollout.vllm.server import VLLMServerConfig, VLLMServerRollout
from tests.cli import SMALL, metrics, ranks, run
from tests.rollout.models import change, largest_difference, make_policy, requests
from tests.rollout.servers import KEY, ServerProcess

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TIMEOUT = 4.0
"""Seconds a server may take; enough for these models."""
RESPONSES = 20

Pair = tuple[ServerProcess, ServerProcess]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy(temperature=0.7)


@pytest.fixture(scope="module")
def pair(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers that hold another model at first."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("servers")
    other = make_policy(seed=1)
    other.model.save_pretrained(folder / "model")
    other.tokenizer.save_pretrained(folder / "model")
    started = [ServerProcess(folder / "model", folder / f"log{i}") for i in range(2)]
    try:
        for server in started:
            server.wait()
        yield started[0], started[1]
    finally:
        for server in started:
            server.kill()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, KEY)


def make_engine(policy: Policy, pair: Pair, **fields: object) -> VLLMServerRollout:
    settings = {
        "addresses": [server.address for server in pair],
        "temperature": 0.7,
        "max_completion_length": 64,
        "timeout_s": TIMEOUT,
        "tries": 2,
        "backoff_s": 0.2,
    }
    made = VLLMServerRollout(VLLMServerConfig.model_validate({**settings, **fields}))
    made.start(policy, seed=3)
    return made


def draw(engine: VLLMServerRollout) -> list[list[list[int]]]:
    asked = requests(engine.policy, RESPONSES)
    answers = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    assert [len(group) for group in answers] == [RESPONSES] * len(asked)
    return [[g.response_ids.tolist() for g in group] for group in answers]


def dropped(engine: VLLMServerRollout) -> list[bool]:
    return [server.fault is not None for server in engine.servers]


def send_later(server: ServerProcess, number: signal.Signals, seconds: float) -> None:
    threading.Timer(seconds, server.signal, [number]).start()


def test_log_probs_and_weights_are_the_trainers_on_every_server(policy: Policy, pair: Pair) -> None:
    engine = make_engine(policy, pair)
    asked = requests(policy, RESPONSES)
    before = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    assert largest_difference(policy, asked, before) < 5e-5
    change(policy, "")
    engine.sync(7)
    after = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    assert largest_difference(policy, asked, after) < 5e-5
    assert {int(v) for group in after for g in group for v in g.policy_version} == {7}
    assert {g.finish_reason for group in after for g in group} == {"stop", "length"}


def test_samples_do_not_depend_on_how_many_servers_there_are(policy: Policy, pair: Pair) -> None:
    both, one = make_engine(policy, pair), make_engine(policy, pair, concurrency=3)
    one.servers = one.servers[:1]
    assert draw(both) == draw(one)


def test_a_server_that_is_late_once_stays(policy: Policy, pair: Pair) -> None:
    """It stands still for one and a half time limits, and answers the second attempt."""
    engine = make_engine(policy, pair)
    expected = draw(engine)
    send_later(pair[0], signal.SIGSTOP, 0.3)
    send_later(pair[0], signal.SIGCONT, 0.3 + 1.5 * TIMEOUT)
    started = time.monotonic()
    assert draw(engine) == expected
    assert time.monotonic() - started > TIMEOUT
    assert dropped(engine) == [False, False]


def test_a_server_that_hangs_is_dropped_and_no_response_is_lost(policy: Policy, pair: Pair) -> None:
    engine = make_engine(policy, pair)
    expected = draw(engine)
    send_later(pair[0], signal.SIGSTOP, 0.3)
    try:
        assert draw(engine) == expected
    finally:
        time.sleep(0.5)
        pair[0].signal(signal.SIGCONT)
    assert dropped(engine) == [True, False]
    assert draw(engine) == expected


def test_a_server_with_other_weights_is_dropped(policy: Policy, pair: Pair) -> None:
    """As one that was started again behind the run's back would have them."""
    engine = make_engine(policy, pair)
    expected = draw(engine)
    engine.servers[0].call("/update_weight_version", {"new_version": "99"})
    assert draw(engine) == expected
    assert dropped(engine) == [True, False]
    assert "weights of version '99', not of '1'" in str(engine.servers[0].fault)


def test_a_server_that_refuses_the_key_is_dropped(
    policy: Policy, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEY, "wrong")
    with pytest.raises(UserError, match=r"no vLLM server is left \(.*status 401"):
        make_engine(policy, pair)


def evidence(engine: VLLMServerRollout, server: Server) -> Evidence:
    return Evidence(
        logp=server.score(engine.probe.ids),
        stale_head=float(server.worker("rlkit_stale_head")),
        dtype=torch.float32,
        report={"received": {}, "compared": [], "different": []},
    )


def test_a_loss_of_weights_on_a_server_stops_the_run(policy: Policy, pair: Pair) -> None:
    """The probe is asked of a server whose temperature someone else changed."""
    engine = make_engine(policy, pair)
    server = engine.servers[1]
    server.worker("rlkit_temperature", 1.0)
    with pytest.raises(UserError, match="differ by .* some of its weights are not the trainer's"):
        engine.probe.check(evidence(engine, server), server.address, 2)


def test_a_server_that_dies_is_replaced_by_the_other_and_without_any_the_run_stops(
    policy: Policy, pair: Pair
) -> None:
    engine = make_engine(policy, pair)
    expected = draw(engine)
    send_later(pair[0], signal.SIGKILL, 0.3)
    assert draw(engine) == expected
    time.sleep(0.5)
    engine.sync(2)
    assert dropped(engine) == [True, False]
    assert draw(engine) == expected
    pair[1].kill()
    with pytest.raises(UserError, match=r"^no vLLM server is left \(http.*; http.*\)$"):
        draw(engine)
    with pytest.raises(ServerFault, match="ConnectionRefused"):
        Server(pair[1].address, timeout=1, tries=1, backoff=0).call("/health")


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


def test_two_trainers_share_a_server(server: ServerProcess, tmp_path: Path) -> None:
    """Only the first talks to it, and both train what one would: the first step's responses are
    those of one trainer."""
    chosen = ("rollout=vllm_server", f'rollout.addresses=["{server.address}"]')
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    alone = run(*GRPO, *chosen, cwd=one, env={API_KEY: KEY})
    assert alone.status == 0, alone.err
    done = ranks("rlkit.run", *GRPO, *chosen, cwd=two, env={API_KEY: KEY})
    assert done.status == 0, done.err
    assert_trained(two / "out", processes=2)
    first = "out/completions/step-1.jsonl"
    assert (two / first).read_text() == (one / first).read_text()
