"""The base is an exponential moving average of the policy's weights.

    base <- decay base + (1 - decay) theta                          after each `every`-th step

WARP's anchor (arXiv:2406.16768; 1 - decay = 0.01 per step). Status: exact for the anchor; WARP's
merging of several runs is no part of it.

`bias_corrected` is BEMA (arXiv:2508.00180), which adds back what the average lags behind:

    E_t = (1 - b_t) E_{t-1} + b_t theta_t       b_t = (offset + growth t)^-ema_power
    base = E_t + a_t (theta_t - theta_0)        a_t = (offset + growth t)^-bias_power

with t the steps since the last rebase and E_0 = theta_0 the policy there. `decay` is not read then.
Status: adapted; the source counts optimizer steps and updates every 400.

Public code: BEMA is TRL's `BEMACallback` (ema_power 0.5, bias_power 0.2, lag 10, multiplier 1),
which may write the average into the reference model every 400 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from anchors.average import AveragingAnchor, fine_copy, numbers, rest
from anchors.base import BASE
from rlkit.interfaces import AnchorConfig, FreezablePolicy, State
from rlkit.registry import register

START = "start"
"""Where theta_0 is kept among the averages."""
AVERAGE = "average"
"""Where E_t is kept among them."""


class EmaConfig(AnchorConfig):
    """Settings of the average."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the average that stays at each update."""
    every: Annotated[int, Field(ge=1)] = 1
    """Steps between two updates, counted from the last rebase."""
    bias_corrected: bool = False
    """BEMA in place of the plain average; it keeps two more copies, E_t (in float32 also under a
    bfloat16 policy) and theta_0."""
    ema_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """BEMA's power of the average's share: 0 = the average is the policy."""
    bias_power: Annotated[float, Field(ge=0, le=1)] = 0.2
    """BEMA's power of the correction."""
    offset: Annotated[float, Field(ge=1)] = 10.0
    """BEMA's rho, TRL's `lag`."""
    growth: Annotated[float, Field(ge=0)] = 1.0
    """BEMA's factor of the steps, TRL's `multiplier`."""


def power(t: int, exponent: float, offset: float, growth: float) -> float:
    """(offset + growth t)^-exponent."""
    return float((offset + growth * t) ** -exponent)


def corrected(
    average: State, weights: State, start: State, share: float, correction: float
) -> Iterator[tuple[str, Tensor]]:
    """average <- (1 - share) average + share weights, in place, tensor by tensor.

    Gives the names and average + correction (weights - start), in the average's type.
    """

    def one(mean: Tensor, name: str) -> Tensor:
        new: Tensor = weights[name].to(mean, copy=True)
        mean.lerp_(new, share)
        return new.sub_(start[name]).mul_(correction).add_(mean)

    yield from ((name, one(mean, name)) for name, mean in numbers(average))
    yield from rest(weights)


@register("anchor", "ema")
class Ema(AveragingAnchor[EmaConfig]):
    """beta KL(pi || base), where the base is the moving average of the weights."""

    sources = ("2406.16768", "2508.00180")

    def move(self, policy: FreezablePolicy) -> None:
        """Update the average if it is time."""
        c = self.config
        if self.steps % c.every != 0:
            return
        if c.bias_corrected:
            self._bema(policy)
        else:
            self.follow(policy, BASE, 1 - c.decay)

    def _bema(self, policy: FreezablePolicy) -> None:
        c, base = self.config, self.frozen[BASE]
        if START not in self.means:
            shown = self.means.pop(BASE, base.state_dict())
            self.means[START] = {name: x.clone() for name, x in numbers(shown)}
            self.means[AVERAGE] = fine_copy(shown)
        share = power(self.steps, c.ema_power, c.offset, c.growth)
        correction = power(self.steps, c.bias_power, c.offset, c.growth)
        average, start = self.means[AVERAGE], self.means[START]
        base.load(corrected(average, policy.state_dict(), start, share, correction))
