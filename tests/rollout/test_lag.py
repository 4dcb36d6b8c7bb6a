"""Rollouts with weights that are synced every L steps: versions, ages, evaluation, resume."""

from __future__ import annotations

import copy
import gc
import signal
import weakref
from pathlib import Path

import pytest
import torch

from rlkit.batch import Request
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.lag import Lag
from tests.certain import FORM_AND_HALF
from tests.cli import metrics, run, without_times
from tests.end_to_end.test_kills import COMMON, weights
from tests.steps import move
from tests.tiny import make_policy, make_prompts

TEXTS = ["1+2=", "12+345="]


def lagging(policy: Policy, every: int) -> Lag:
    engine = HFRollout(HFConfig(max_completion_length=6, sync_every=every))
    engine.start(policy, seed=3)
    return Lag(engine, policy)


def responses(lag: Lag) -> list[Generation]:
    asked = [Request(prompt=p, n=4) for p in make_prompts(lag.policy, TEXTS)]
    return [g for group in lag.engine.generate(GenerationCall(asked, ("t", 1, 0))) for g in group]


def texts(answers: list[Generation]) -> list[list[int]]:
    return [g.response_ids.tolist() for g in answers]


def versions(answers: list[Generation]) -> set[int]:
    return {int(version) for g in answers for version in g.policy_version}


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 1, 1, 4, 4, 4, 7])]
)
def test_step_k_generates_with_the_weights_of_the_last_sync(
    every: int, expected: list[int]
) -> None:
    """k - (k - 1) mod L, and the log-probs are those of that step's weights."""
    policy = make_policy()
    lag, past = lagging(policy, every), {}
    for step, version in enumerate(expected, start=1):
        past[step] = copy.deepcopy(policy)
        answers = responses(lag)
        assert versions(answers) == {version}
        prompts = [p.ids for p in make_prompts(policy, TEXTS) for _ in range(4)]
        tokens = Tokens.of(prompts, [g.response_ids for g in answers])
        for row, g in zip(past[version].logp(tokens), answers, strict=True):
            torch.testing.assert_close(row[: len(g.logp)], g.logp, atol=2e-5, rtol=0)
        move(policy)
        lag.sync(step + 1)


def test_weights_are_shared_without_a_lag_and_copied_with_one() -> None:
    policy = make_policy()
    shared, copied = lagging(policy, 1), lagging(policy, 2)
    assert isinstance(shared.engine, HFRollout) and isinstance(copied.engine, HFRollout)
    assert shared.engine.model is policy.model and not shared.kept
    assert copied.engine.model is not policy.model
    assert all(p.requires_grad for p in policy.model.parameters())
    assert not any(p.requires_grad for p in copied.engine.model.parameters())


def test_a_closed_engine_holds_no_copy() -> None:
    lag = lagging(make_policy(), 2)
    assert isinstance(lag.engine, HFRollout)
    copied = weakref.ref(lag.engine.model)
    lag.engine.close()
    gc.collect()
    assert copied() is None
    lag.engine.close()


def test_an_evaluation_is_of_the_policy_as_it_is() -> None:
    """Inside `current` the engine answers like one without a lag; after it, as before."""
    policy = make_policy()
    lag = lagging(policy, 5)
    old = responses(lag)
    move(policy)
    lag.sync(2)
    now = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with lag.current(2):
        current = responses(lag)
    assert versions(current) == {2}
    assert texts(current) == texts(responses(lagging(policy, 1))) != texts(old)
    assert texts(responses(lag)) == texts(old) and versions(responses(lag)) == {1}
    assert all(torch.equal(policy.model.state_dict()[name], now[name]) for name in now)


def test_the_state_restores_the_lagging_weights_and_leaves_the_policy_alone() -> None:
    policy = make_policy()
    lag = lagging(policy, 3)
    move(policy)
    lag.sync(2)
    resumed = lagging(copy.deepcopy(policy), 3)
    resumed.load_state_dict(copy.deepcopy(lag.state_dict()), 2)
    assert versions(responses(resumed)) == {1}
    assert texts(responses(resumed)) == texts(responses(lag))
    assert texts(responses(resumed)) != texts(responses(lagging(policy, 1)))
    mine, theirs = resumed.policy.model.state_dict(), policy.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_without_a_lag_a_resumed_engine_has_the_version_of_the_next_step() -> None:
    lag = lagging(make_policy(), 1)
    assert lag.state_dict() == {}
    lag.load_state_dict({}, 7)
    assert versions(responses(lag)) == {7}


def lagged_run(folder: Path, *arguments: str, kill: str = "", resume: str = "never") -> Path:
    chosen = ("algorithm=grpo", "rollout.sync_every=4", f"output_dir={folder}", f"resume={resume}")
    result = run(*COMMON, *chosen, *arguments, cwd=folder.parent, env={"KILL": kill})
    assert result.status == (-signal.SIGKILL if kill else 0), result.err
    return folder


@pytest.mark.parametrize(("before", "now"), [(4, 1), (1, 4), (4, 2)])
def test_a_resumed_run_may_lag_otherwise(before: int, now: int) -> None:
    """From step 6 on. Without a lag before or after, the engine has the policy's own weights.

    With one, it goes on with those of step 5, until the next sync of its own.
    """
    policy = make_policy()
    lag = lagging(policy, before)
    for step in range(1, 6):
        move(policy)
        lag.sync(step + 1)
    resumed = lagging(policy, now)
    resumed.load_state_dict(lag.state_dict(), 6)
    expected = 5 if 1 not in (before, now) else 6
    assert resumed.version == expected and versions(responses(resumed)) == {expected}
    assert bool(resumed.kept) == (now > 1)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_a_lag_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """L = 4, checkpoints after steps 2, 4 and 6: a kill in step 3 resumes with the weights of step
    1, one in step 6 with those of step 5, which are the policy's at the checkpoint after step 4."""
    whole = lagged_run(tmp_path / "whole")
    folder = tmp_path / "out"
    for kill in ("reward:4", "reward:4"):
        lagged_run(folder, kill=kill, resume="auto")
    lagged_run(folder, resume="auto")
    rows = without_times(metrics(folder))
    assert rows == without_times(metrics(whole))
    assert all(torch.equal(value, weights(folder)[k]) for k, value in weights(whole).items())
    stale = [row["off_policy/staleness_max"] for row in rows if "policy/loss" in row]
    assert stale == [0, 1, 2, 3, 0, 1]


@pytest.mark.slow
def test_a_lagging_run_evaluates_the_policy_it_has_trained(tmp_path: Path) -> None:
    """Step 1 is the same with and without a lag, so the evaluation after it must be too. It is so
    large that the policy forgets the form."""
    more = ("train.steps=1", "train.learning_rate=1", "eval.problems=64", FORM_AND_HALF)
    one = lagged_run(tmp_path / "one", *more, "rollout.sync_every=1", "train.warmup_steps=0")
    two = lagged_run(tmp_path / "two", *more, "rollout.sync_every=2", "train.warmup_steps=0")
    (before, _, after), other = without_times(metrics(one)), without_times(metrics(two))
    assert after == other[-1]
    assert before["eval/greedy"] > 0.9 and after["eval/greedy"] < 0.1, "the step is visible"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oapl_lag", "grpo_lag"])
def test_the_shipped_experiments_lag_fifty_steps(name: str, tmp_path: Path) -> None:
    result = run(f"+experiment={name}", "dry_run=true", "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    config = run(f"+experiment={name}", "--cfg", "job", "-p", "rollout", cwd=tmp_path)
    assert "sync_every: 50" in config.out
    loss = run(f"+experiment={name}", "--cfg", "job", "-p", "loss", cwd=tmp_path).out
    assert "name: oapl" in loss or "ratio_to: behavior" in loss
