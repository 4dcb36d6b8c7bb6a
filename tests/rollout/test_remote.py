"""An engine in another process: the same answers, weights in order, and its end."""

from __future__ import annotations

import os
import signal
from itertools import chain

import pytest
import torch

from rlkit.batch import Request
from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.vllm.engine import VLLMConfig, VLLMRollout
from tests.rollout.remotes import ids, remote, stream
from tests.steps import move
from tests.tiny import make_policy


@pytest.mark.slow
def test_another_process_answers_as_the_engine_here_does() -> None:
    """Responses, log-probs, versions, greedy ones; before and after a hand-over of weights, which
    applies to what is asked after it."""
    policy = make_policy()
    there, here = remote(policy, mode="ahead"), HFRollout(HFConfig(max_completion_length=6))
    here.start(policy, seed=3)
    asked = [Request(prompt=p, n=2) for p in stream(policy).take(3)]
    try:
        before, early = (
            here.generate(GenerationCall(asked, ("t", 1, 0))),
            there.submit(GenerationCall(asked, ("t", 1, 0))),
        )
        move(policy)
        for engine in (here, there):
            engine.sync(2)
        after = here.generate(GenerationCall(asked, ("t", 1, 0)))
        assert ids(there.generate(GenerationCall(asked, ("t", 1, 0)))) == ids(after) != ids(before)
        greedy = there.generate(GenerationCall(asked, ("t", 1, 0), greedy=True))
        assert ids(greedy) == ids(here.generate(GenerationCall(asked, ("t", 1, 0), greedy=True)))
        late = there.wait(early)
        assert ids(late) == ids(before)
        for a, b in zip(chain(*late), chain(*before), strict=True):
            assert torch.equal(a.logp, b.logp) and torch.equal(a.policy_version, b.policy_version)
        assert not list(there.folder.glob("weights-*")), "files that were read are removed"
        assert not list(there.folder.glob("answer-*"))
    finally:
        there.close()
    assert not there.folder.exists()


@pytest.mark.slow
def test_without_fixed_hand_over_points_new_weights_overtake_what_waits() -> None:
    """Twelve jobs and then new weights: the last job, still waiting, is generated with them.

    The process stands still meanwhile, or it might be done first.
    """
    policy = make_policy()
    engine = remote(policy, mode="async", max_staleness=2)
    try:
        asked = [Request(prompt=p, n=60) for p in stream(policy).take(3)]
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)
        numbers = [engine.submit(GenerationCall(asked, ("t", i, 0))) for i in range(12)]
        engine.sync(2)
        os.kill(engine.process.pid, signal.SIGCONT)
        found = [
            {int(v) for g in chain(*engine.wait(n)) for v in g.policy_version} for n in numbers
        ]
        assert all(len(one) == 1 for one in found), "a generation keeps its weights"
        assert found == sorted(found, key=max) and found[-1] == {2}
    finally:
        engine.close()


@pytest.mark.slow
def test_an_error_in_the_process_is_told_here() -> None:
    inner = HFRollout(HFConfig())
    engine = RemoteEngine(inner, "nothing", ModelConfig(device="cpu"), ())
    with pytest.raises(UserError, match="the rollout process failed: there is no rollout called"):
        engine.start(make_policy(), seed=0)
    engine.close()


@pytest.mark.slow
def test_a_process_that_died_ends_the_run_with_one_line() -> None:
    engine = remote(make_policy())
    assert engine.process is not None
    engine.process.kill()
    with pytest.raises(UserError, match=r"ended with status -9; continue from .* resume=auto"):
        engine.generate(GenerationCall([], ("t", 1, 0)))
    engine.close()
    engine.close()


def test_the_process_is_told_all_it_needs_and_runs_the_engine_in_step() -> None:
    """Which weights answer what is decided here, whatever the mode."""
    inner = HFRollout(HFConfig(mode="async", max_staleness=3, temperature=0.5))
    engine = RemoteEngine(inner, "hf", ModelConfig(device="auto"), ("own.py",))
    engine.policy = make_policy()
    spec = engine._spec(7)
    assert (spec["engine"], spec["seed"], spec["plugins"]) == ("hf", 7, ["own.py"])
    assert spec["model"]["device"] == "cpu", "the device that was found"
    assert spec["config"]["temperature"] == 0.5 and spec["config"]["mode"] == "sync"
    assert spec["config"]["max_staleness"] == 0 and not spec["ordered"]
    for settings in ({"mode": "ahead"}, {"mode": "async", "deterministic": True}):
        engine.config = HFConfig.model_validate(settings)
        assert engine._spec(7)["ordered"]


def test_an_engine_beside_the_trainer_keeps_its_memory() -> None:
    """What it freed asleep the trainer would take, and nothing makes the trainer give it back."""
    engine = RemoteEngine(VLLMRollout(VLLMConfig(mode="ahead")), "vllm", ModelConfig(), ())
    engine.policy = make_policy()
    assert VLLMConfig().sleep and engine._spec(7)["config"]["sleep"] is False
