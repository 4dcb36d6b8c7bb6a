"""Costs with a limit: the multiplier by hand, in steps, in checkpoints, in several processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlkit.models.policy import Policy
from rlkit.rewards.function import FunctionConfig, reward_class
from rlkit.rewards.limits import Multiplier, ascended, multipliers_of
from rlkit.rewards.scoring import RewardSet
from rlkit.training.collect import Collector
from rlkit.training.trainer import Trainer
from tests.cli import ROOT, SMALL, command, metrics, ranks, run, without_times
from tests.sessions import config_of, make_session
from tests.steps import has_one

CLOSENESS = f"{ROOT}/examples/every_part.py:closeness"
LIMITED = (
    *SMALL,
    *("algorithm=remix", f"reward=[exact,{CLOSENESS}]", "reward.closeness.limit=0.05"),
    *("reward.closeness.multiplier=0.5", "reward.closeness.multiplier_rate=20"),
    *("rollout.num_generations=4", "checkpoint.every=2"),
)


def test_a_step_of_the_ascent() -> None:
    assert ascended(1.0, cost=0.75, limit=0.5, rate=2.0, largest=9.0) == 1.5
    assert ascended(1.0, cost=0.25, limit=0.5, rate=2.0, largest=9.0) == 0.5
    assert ascended(1.0, cost=0.25, limit=0.5, rate=8.0, largest=9.0) == 0.0
    assert ascended(1.0, cost=1.0, limit=0.5, rate=18.0, largest=9.0) == 9.0


def test_a_multiplier_follows_the_previous_steps_metrics() -> None:
    scalar = Multiplier(cost="c", limit=0.5, start=1.0, rate=2.0, largest=9.0)
    assert scalar.value(1, {}) == 1.0
    assert scalar.value(2, {"reward/c/multiplier": 3.0, "reward/c/mean": 0.75}) == 3.5
    assert scalar.value(2, {"reward/c/multiplier": 3.0}) == 3.0, "nothing was generated"
    assert scalar.value(1, {"reward/c/mean": 0.75}) == 1.0, "a stage before had no limit"
    assert set(scalar.extremes()) == {0.0, 1.0, 9.0}


def test_only_rewards_with_a_limit_have_a_multiplier() -> None:
    config = FunctionConfig(limit=0.5, multiplier=1.0, multiplier_rate=2.0, multiplier_max=9.0)
    rewards = {"one": reward_class(has_one)(), "c": reward_class(has_one)(config)}
    assert multipliers_of(rewards) == {
        "reward.c.multiplier": Multiplier(cost="c", limit=0.5, start=1.0, rate=2.0, largest=9.0)
    }


def scripted(costs: Sequence[float]) -> Any:
    """A cost of so much in each call, whatever the completions."""
    each: Iterator[float] = iter(costs)

    def cost(completions: Sequence[str], **columns: Any) -> list[float]:
        return [next(each)] * len(completions)

    return cost


def test_it_grows_while_the_limit_is_exceeded_and_falls_when_it_is_kept(
    policy: Policy, tmp_path: Path
) -> None:
    """Limit 1/2, rate 1/2: +1/4 for a cost of 1, -1/8 for 1/4, at most 5/8, never below 0."""
    costs = [1.0, 1.0, 1.0, 0.25, 0.5, 0.0, 0.0, 0.0]
    limit = {"limit": 0.5, "multiplier_rate": 0.5, "multiplier_max": 0.625}
    rewards = {
        "one": reward_class(has_one)(),
        "cost": reward_class(scripted(costs))(FunctionConfig(**limit)),
    }
    session = make_session(policy, tmp_path, config=config_of(tmp_path, steps=len(costs)))
    collector = Collector(
        session.collector.source, RewardSet(rewards), session.parts.advantage, policy.tokenizer
    )
    named = {f"reward.{name}": reward for name, reward in rewards.items()}
    session = replace(
        session,
        collector=collector,
        parts=replace(session.parts, rewards=rewards),
        sections={**session.sections, **named},
        scalars=multipliers_of(rewards),
    )
    Trainer(session).run()
    rows = [row for row in metrics(tmp_path) if "policy/lr" in row]
    multipliers = [0.0, 0.25, 0.5, 0.625, 0.5, 0.5, 0.25, 0.0]
    assert [row["reward/cost/multiplier"] for row in rows] == multipliers
    assert [row["reward/cost/violation"] for row in rows] == [cost - 0.5 for cost in costs]
    for row, multiplier, cost in zip(rows, multipliers, costs, strict=True):
        assert row["reward/mean"] == pytest.approx(row["reward/one/mean"] - multiplier * cost)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps without a break."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    done = run(*LIMITED, "train.steps=4", f"output_dir={folder}", cwd=folder.parent)
    assert done.status == 0, done.err
    return folder


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in without_times(metrics(folder)) if "policy/lr" in row]


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_multiplier_it_had(whole: Path, tmp_path: Path) -> None:
    """Bit for bit, replayed responses included, whose totals have the multiplier of the step."""
    rows = steps_of(whole)
    multipliers = [row["reward/closeness/multiplier"] for row in rows]
    assert multipliers[0] == 0.5 and len(set(multipliers)) == 4
    assert rows[3]["buffer/fresh_fraction"] < 1
    killed = tmp_path / "out"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoint-4")
    again = run(*LIMITED, "train.steps=4", f"output_dir={killed}", "resume=auto", cwd=tmp_path)
    assert again.status == 0, again.err
    assert "Resumed from step 2" in again.out, again.out
    assert steps_of(killed) == rows
    file = "checkpoint-4/model.safetensors"
    assert (killed / file).read_bytes() == (whole / file).read_bytes()


def test_each_completion_has_the_total_of_the_step_that_trains_it(whole: Path) -> None:
    (row,) = (row for row in steps_of(whole) if row["step"] == 4)
    lines = (whole / "completions" / "step-4.jsonl").read_text().splitlines()
    trained = [json.loads(line) for line in lines]
    assert any(each["age"] > 0 for each in trained)
    for each in trained:
        cost = row["reward/closeness/multiplier"] * each["rewards"]["closeness"]
        assert each["reward"] == pytest.approx(each["rewards"]["exact"] - cost)


def test_an_evaluation_of_a_checkpoint_has_its_multiplier(whole: Path, tmp_path: Path) -> None:
    done = command(
        *(
            "rlkit.__main__",
            "eval",
            str(whole / "checkpoint-4"),
            "--out",
            "found",
            "eval.problems=8",
        ),
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    alone = json.loads((tmp_path / "found" / "results.json").read_text())["metrics"]
    (inside,) = (row for row in metrics(whole) if row["step"] == 4 and "eval/reward" in row)
    multiplier = steps_of(whole)[-1]["reward/closeness/multiplier"]
    for found in (alone, inside):
        cost = multiplier * found["eval/reward/closeness/mean"]
        assert found["eval/reward"] == pytest.approx(found["eval/reward/exact/mean"] - cost)


@pytest.mark.slow
def test_two_processes_follow_the_mean_over_both(whole: Path, tmp_path: Path) -> None:
    done = ranks("rlkit.run", *LIMITED, "train.steps=2", "output_dir=two", cwd=tmp_path)
    assert done.status == 0, done.err
    for one, two in zip(steps_of(whole), steps_of(tmp_path / "two"), strict=False):
        for key in ("mean", "multiplier", "violation"):
            key = f"reward/closeness/{key}"
            assert two[key] == pytest.approx(one[key], rel=1e-6), (one["step"], key)
