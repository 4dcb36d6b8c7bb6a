"""Limits on the mean of a cost, kept by Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rlkit.config.scalars import Scalar
from rlkit.rewards.weights import Rewards, limits_of


def ascended(multiplier: float, cost: float, limit: float, rate: float, largest: float) -> float:
    """A step of gradient ascent on the dual: clip(lambda + rate (cost - limit), 0, largest)."""
    return min(max(multiplier + rate * (cost - limit), 0.0), largest)


class Multiplier(Scalar):
    """The Lagrange multiplier of a cost, as a schedule that follows the cost's mean.

    max_pi min_(lambda >= 0) E[sum_k w_k r_k] - lambda (E[c] - limit): step k trains with lambda_k,
    and lambda_(k+1) = clip(lambda_k + rate (mean c - limit), 0, max), the mean over the responses
    of step k that the cost applies to, in all processes. Replayed ones do not count: they are not
    the current policy's. A step without new responses leaves the multiplier as it is.

    The total is not divided by 1 + lambda, as it is in OmniSafe's PPO-Lagrangian and in Safe-RLHF
    (arXiv:2310.12773, whose log lambda moves): that would change what a right answer earns, which
    buffers and advantages compare with thresholds. Advantages that divide by a standard deviation
    are the same either way. Status: our choice.
    """

    kind: Literal["multiplier"] = "multiplier"
    cost: str
    """The reward's name."""
    limit: float
    """The largest mean."""
    start: float
    """Its first value."""
    rate: float
    """Step size."""
    largest: float
    """Its upper bound."""

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """The multiplier after the previous step, whose metrics have it and the mean cost."""
        before = metrics.get(multiplier_key(self.cost))
        if before is None:
            return self.start
        mean = metrics.get(f"reward/{self.cost}/mean", self.limit)
        return ascended(before, mean, self.limit, self.rate, self.largest)

    def extremes(self) -> tuple[float, ...]:
        """Its first value and its bounds."""
        return (self.start, 0.0, self.largest)


def multiplier_key(name: str) -> str:
    """The metric that is the multiplier of a reward with a limit."""
    return f"reward/{name}/multiplier"


def multipliers_of(rewards: Rewards) -> dict[str, Multiplier]:
    """The multiplier of each reward with a limit, by the setting it replaces."""
    return {
        f"reward.{name}.multiplier": Multiplier(
            cost=name,
            limit=limit,
            start=rewards[name].config.multiplier,
            rate=rewards[name].config.multiplier_rate,
            largest=rewards[name].config.multiplier_max,
        )
        for name, limit in limits_of(rewards).items()
    }
