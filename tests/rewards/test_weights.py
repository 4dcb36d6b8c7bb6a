"""What rewards count in the total, when they are scored and when they are replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rlkit
from rlkit.batch import AdvantageBatch, AdvantageOutput, Group, Sample
from rlkit.config.scalars import scalar_of
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator, RewardConfig
from rlkit.models.policy import Policy
from rlkit.ops import over_tokens
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.weights import (
    GREEDY,
    Rewards,
    limits_of,
    restated,
    weighed,
    weighted_sum,
    weights_of,
)
from rlkit.testing.advantages import examples
from rlkit.training.collect import Collector
from rlkit.training.trainer import Trainer
from tests.sessions import config_of, make_session
from tests.steps import has_one


def long(completion_ids: Any, **columns: Any) -> list[float]:
    return [len(ids) / 8 for ids in completion_ids]


def rewards_of(**settings: dict[str, Any]) -> Rewards:
    """Rewards with these settings."""
    made = {}
    for name, fields in settings.items():
        made[name] = reward_class(has_one)()
        made[name].config = RewardConfig(**fields)
    return made


def sample(number: int, reward: float, **rewards: float) -> Sample:
    return Sample(
        sample_id=number,
        prompt_id="p",
        response_ids=torch.tensor([3]),
        loss_mask=torch.ones(1, dtype=torch.bool),
        behavior_logp=torch.zeros(1),
        policy_version=torch.ones(1, dtype=torch.int32),
        reward=reward,
        rewards=rewards,
        finish_reason="stop",
        step=1,
    )


def group(*samples: Sample) -> Group:
    return Group(prompt=None, samples=list(samples))  # type: ignore[arg-type]


def test_a_weight_is_the_rewards_own_or_minus_the_multiplier_of_its_limit() -> None:
    rewards = rewards_of(
        right={"weight": 2.0}, cost={"limit": 0.5, "multiplier": 3.0}, free={"limit": 0.0}
    )
    assert weights_of(rewards) == {"right": 2.0, "cost": -3.0, "free": 0.0}
    assert limits_of(rewards) == {"cost": 0.5, "free": 0.0}
    assert weighted_sum([2.0, -3.0, 0.0], [1.0, 0.5, None]) == 0.5
    assert weighted_sum([2.0], [None]) is None


def test_a_replayed_response_gets_the_total_of_the_present_weights() -> None:
    """Two responses of different steps: what the first was promised for its tool call is gone."""
    rewards = rewards_of(right={"weight": 1.0}, call={"weight": 0.25})
    stored = group(sample(1, 2.0, right=1.0, call=1.0), sample(2, 0.25, right=0.0, call=1.0))
    (found,) = restated([stored], rewards, ["loss.epsilon", "reward.call.weight"])
    assert [s.reward for s in found.samples] == [1.25, 0.25]
    assert [s.reward for s in stored.samples] == [2.0, 0.25], "the buffer's own stay as they were"
    assert found.samples[1] is stored.samples[1], "what is right already is not copied"


def test_a_reward_that_does_not_apply_is_left_out_of_the_total() -> None:
    rewards = rewards_of(right={"weight": 1.0}, cost={"limit": 0.5, "multiplier": 3.0})
    (found,) = restated([group(sample(1, 9.0, cost=1.0))], rewards, ["reward.cost.multiplier"])
    assert found.samples[0].reward == -3.0


@pytest.mark.parametrize("rewards", [{}, {"right": 1.0, "of_another_run": 1.0}])
def test_a_response_of_other_rewards_keeps_its_total(rewards: dict[str, float]) -> None:
    """A demonstration with a reward of its own, or a row that another run stored."""
    own = rewards_of(right={"weight": 5.0})
    (found,) = restated([group(sample(1, 0.5, **rewards))], own, ["reward.right.weight"])
    assert found.samples[0].reward == 0.5


def test_totals_are_left_alone_while_weights_stand_still() -> None:
    """A buffer may give rewards of its own."""
    groups = [group(sample(1, 7.0, right=1.0))]
    assert restated(groups, rewards_of(right={}), ["anchor.beta"]) is groups


def test_an_advantage_reads_weights_and_where_rewards_apply() -> None:
    rewards = rewards_of(right={"weight": 2.0}, call={"weight": 0.5})
    rows = [sample(i, 0.0, right=1.0, **({"call": 1.0} if i < 3 else {})) for i in range(8)]
    values = {name: torch.zeros(8) for name in ("right", "call")}
    found = weighed(replace(examples(), rewards=values), rows, rewards)
    assert {n: w.tolist() for n, w in found.reward_weights.items()} == {
        "right": [2.0] * 8,
        "call": [0.5] * 8,
    }
    assert found.reward_applies["right"].all()
    assert found.reward_applies["call"].tolist() == [True] * 3 + [False] * 5
    assert found.rows(torch.tensor([2, 3])).reward_applies["call"].tolist() == [True, False]


class Seeing(AdvantageEstimator):
    """Keeps the batches it is given."""

    caches = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[AdvantageBatch] = []

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        self.seen.append(b)
        flat = over_tokens(b.reward, b.mask)
        return AdvantageOutput(advantage=flat, returns=flat)


def test_a_step_trains_old_and_new_responses_on_its_own_total(
    policy: Policy, tmp_path: Path
) -> None:
    """The weight falls from 1 to 0 in three steps, and half of a batch is replayed."""
    seeing, steps = Seeing(), 4
    rewards = {"one": reward_class(has_one)(), "long": reward_class(long)()}
    session = make_session(policy, tmp_path, config=config_of(tmp_path, steps=steps))
    parts = replace(session.parts, advantage=seeing, rewards=rewards)
    named = {f"reward.{name}": reward for name, reward in rewards.items()}
    ramp = {"kind": "linear", "start": 1.0, "end": 0.0, "steps": steps - 1}
    session = replace(
        session,
        parts=parts,
        buffer=rlkit.build("buffer", "fifo"),
        collector=Collector(session.collector.source, RewardSet(rewards), seeing, policy.tokenizer),
        sections={**session.sections, **named},
        scalars={"reward.long.weight": scalar_of("reward.long.weight", ramp)},
    )
    Trainer(session).run()
    replayed = torch.cat([b.replayed for b in seeing.seen])
    assert 0 < replayed.sum() < len(replayed), "there are old and new ones"
    for step, b in enumerate(seeing.seen):
        weight = 1 - step / (steps - 1)
        torch.testing.assert_close(b.reward, b.rewards["one"] + weight * b.rewards["long"])
        torch.testing.assert_close(b.reward_weights["long"], torch.full_like(b.reward, weight))


def test_a_greedy_baseline_of_other_weights_is_not_subtracted() -> None:
    """It is a total, and its rewards are not kept: to ascend on it would be wrong."""
    rewards = rewards_of(right={"weight": 1.0})
    old, same = sample(1, 2.0, right=1.0), sample(2, 1.0, right=1.0)
    for each in (old, same):
        each.extras[GREEDY] = 0.5
    restated([group(same)], rewards, ["reward.right.weight"])
    with pytest.raises(UserError, match="greedy baseline cannot weigh that of a replayed"):
        restated([group(old)], rewards, ["reward.right.weight"])
