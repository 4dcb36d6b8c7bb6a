"""Demonstrations on their way from a request into a batch, through the real collector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlkit.batch import Request
from rlkit.interfaces import Reward
from rlkit.models.policy import Policy
from rlkit.registry import build
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.weights import GREEDY
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.source import OnDemand
from rlkit.tasks.prompts import Prompts
from rlkit.training.collect import Collected, Collector
from tests.steps import ROWS, collected, plan_of, shown
from tests.tiny import make_policy

ONE = torch.tensor([3, 1])
"""The text "1" and the end."""
TWO = torch.tensor([4, 1])


def collect(
    policy: Policy, requests: Sequence[Request], advantage: str = "group_norm"
) -> Collected:
    return collected(policy, requests, 3, advantage=advantage, first_id=70)


def test_a_demonstration_joins_its_group_and_is_scored_like_a_response() -> None:
    policy = make_policy()
    prompts = Prompts("train", ROWS, policy.tokenizer)
    made = collect(
        policy,
        [
            Request(prompt=prompts[0], n=2, demonstrations=(shown(5, ONE), shown(6, TWO))),
            Request(prompt=prompts[1], n=3),
        ],
    )
    group, other = made.groups
    assert [s.sample_id for s in group.samples] == [70, 71, -5, -6]
    assert [s.sample_id for s in other.samples] == [72, 73, 74]
    assert [s.source for s in group.samples] == ["policy", "policy", "expert", "expert"]
    right, wrong = group.samples[2:]
    assert (right.reward, wrong.reward) == (1.0, 0.0)
    assert right.rewards == {"one": 1.0}
    assert torch.equal(right.response_ids, ONE) and right.loss_mask.all()
    assert right.behavior_logp.tolist() == [0, 0] and right.policy_version.tolist() == [3, 3]


def test_a_given_reward_is_not_scored() -> None:
    policy = make_policy()
    prompt = Prompts("train", ROWS, policy.tokenizer)[0]
    made = collect(policy, [Request(prompt=prompt, n=2, demonstrations=(shown(5, TWO, 0.5),))])
    assert made.groups[0].samples[-1].reward == 0.5
    assert len(made.tally.rewards) == 2


def test_demonstrations_are_no_rollouts_and_enter_no_figure() -> None:
    policy = make_policy()
    prompts = Prompts("train", ROWS, policy.tokenizer)
    plain = collect(policy, [Request(prompt=prompts[0], n=2)])
    joined = collect(policy, [Request(prompt=prompts[0], n=2, demonstrations=(shown(5, ONE),))])
    assert joined.tally.rollouts == 2
    assert joined.tally.metrics() == plain.tally.metrics()


def test_a_group_of_one_demonstration_needs_no_generation_and_no_company() -> None:
    """group_norm asks for two responses per group; a demonstration alone is not compared."""
    policy = make_policy()
    prompts = Prompts("train", ROWS, policy.tokenizer)
    made = collect(policy, [Request(prompt=prompts[0], n=0, demonstrations=(shown(5, ONE, 1.0),))])
    assert [s.sample_id for s in made.groups[0].samples] == [-5]
    assert made.tally.rollouts == 0
    assert "reward/mean" not in made.tally.metrics(), "nothing was generated"


def test_greedy_rewards_go_to_groups_with_new_responses() -> None:
    policy = make_policy()
    prompts = Prompts("train", ROWS, policy.tokenizer)
    made = collect(
        policy,
        [
            Request(prompt=prompts[0], n=0, demonstrations=(shown(5, ONE, 1.0),)),
            Request(prompt=prompts[1], n=2, demonstrations=(shown(6, ONE),)),
        ],
        advantage="remax",
    )
    assert [[GREEDY in s.extras for s in g.samples] for g in made.groups] == [[False], [True] * 3]


class Shy(Reward):
    """Has nothing to say of greedy responses, the second call of an attempt, at first."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        self.calls += 1
        return [None if self.calls == 2 else 1.0] * len(completions)

    def counts(self) -> dict[str, int]:
        return {"calls": 1}


def test_a_group_without_a_greedy_reward_has_no_baseline_and_is_asked_again() -> None:
    """A baseline of 0 would make the reward itself the advantage."""
    policy = make_policy()
    requests = [Request(prompt=p, n=2) for p in Prompts("train", ROWS, policy.tokenizer)[:2]]
    engine = HFRollout(HFConfig(max_completion_length=6))
    engine.start(policy, seed=0)
    engine.sync(1)
    remax, reward = build("advantage", "remax"), Shy()
    source = OnDemand(engine, greedy=True)
    collector = Collector(source, RewardSet({"shy": reward}), remax, policy.tokenizer)
    made = collector.collect(plan_of(requests, 1), first_id=0)
    assert reward.calls == 4 and len(made.groups) == 2
    assert all(s.extras[GREEDY] == 1.0 for g in made.groups for s in g.samples)
    assert made.tally.events == {"calls": 4}
