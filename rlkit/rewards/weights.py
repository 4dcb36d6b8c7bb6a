"""What each reward counts in the total, and the total of responses that were scored before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from rlkit.batch import AdvantageBatch, Group, Sample
from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig

Rewards = Mapping[str, Reward[Any]]
SECTION = "reward."
"""How the settings of rewards begin."""
GREEDY = "greedy_reward"
"""What a response's extras call the total of the greedy response to its prompt."""


def weights_of(rewards: Rewards) -> dict[str, float]:
    """The present weight of each reward: its own, or minus the multiplier of one with a limit.

    What evaluations alone report has none.
    """
    return {name: _weight(reward.config) for name, reward in rewards.items()}


def _weight(config: RewardConfig) -> float:
    if config.evaluation_only:
        return 0.0
    return config.weight if config.limit is None else -config.multiplier


def weighed(batch: AdvantageBatch, samples: Sequence[Sample], rewards: Rewards) -> AdvantageBatch:
    """The batch of these samples with the present weight of each reward, and where it applies."""
    weights = weights_of(rewards)
    return replace(
        batch,
        reward_weights={n: torch.full((len(samples),), weight) for n, weight in weights.items()},
        reward_applies={n: torch.tensor([n in s.rewards for s in samples]) for n in batch.rewards},
    )


def limits_of(rewards: Rewards) -> dict[str, float]:
    """The limit of each reward that has one."""
    limits = {name: reward.config.limit for name, reward in rewards.items()}
    return {name: limit for name, limit in limits.items() if limit is not None}


def weighted_sum(weights: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Sum of weight * value over the values that are not None; None if all are."""
    parts = [w * v for w, v in zip(weights, values, strict=True) if v is not None]
    return math.fsum(parts) if parts else None


def fixed_weights(what: str) -> str:
    """Why the weights of rewards cannot move, as `what` does, under a greedy baseline in replay."""
    return (
        f"{what} moves, and an advantage with a greedy baseline cannot weigh that of a replayed "
        "response anew: keep the weights fixed, use buffer=on_policy, or choose another advantage"
    )


def restated(groups: list[Group], rewards: Rewards, moving: Iterable[str]) -> list[Group]:
    """The groups with totals by the present weights, if weights are among the `moving` settings.

    A step ascends its own objective, so a replayed response counts in it as a new one does; and
    responses of several steps in one group are compared on one scale. What a buffer holds stays as
    it was. A response without rewards by name, or with another run's, keeps its total. Raises
    UserError for one whose total changes while its greedy baseline, a total too, cannot.
    """
    if not any(name.startswith(SECTION) for name in moving):
        return groups
    weights = weights_of(rewards)
    return [replace(g, samples=[_restated(s, weights) for s in g.samples]) for g in groups]


def _restated(sample: Sample, weights: Mapping[str, float]) -> Sample:
    if not sample.rewards or not sample.rewards.keys() <= weights.keys():
        return sample
    total = weighted_sum(list(weights.values()), [sample.rewards.get(name) for name in weights])
    if total is None or total == sample.reward:
        return sample
    if GREEDY in sample.extras:
        raise UserError(fixed_weights("the weight of a reward"))
    return replace(sample, reward=total)
