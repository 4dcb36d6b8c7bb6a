"""What losses on a ratio share: its denominator as a setting, and their output with its metrics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import LossBatch, LossOutput, Term
from rlkit.interfaces import LossConfig, PolicyLoss


class RatioConfig(LossConfig):
    """Settings of a loss whose ratio may be to either policy."""

    ratio_to: Literal["prox", "behavior"] = "prox"
    """Denominator of the ratio: the policy at the start of the step, or the one that sampled the
    response."""


RC = TypeVar("RC", bound=RatioConfig, default=RatioConfig)


class RatioLoss(PolicyLoss[RC]):
    """A loss on pi / prox or, by `ratio_to`, on pi / behavior."""

    def __init__(self, config: RC | None = None) -> None:
        super().__init__(config)
        self.needs = frozenset({self.config.ratio_to})

    def other(self, batch: LossBatch) -> Tensor:
        """The log-probs under the ratio, [B, T]."""
        return batch.prox_logp if self.config.ratio_to == "prox" else batch.behavior_logp


def in_clip(ratio: Tensor, advantage: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Where the clipped surrogate keeps its gradient, as 0/1.

    Not where A > 0 and ratio > high, nor where A < 0 and ratio < low.
    """
    out = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    return (~out).to(ratio.dtype)


def policy_output(value: Tensor, mask: Tensor, **metrics: Tensor) -> LossOutput:
    """The policy's term, [B, T] or [B], with metrics; `ratio` becomes ratio_mean and ratio_max."""
    shown = {name: metric.detach() for name, metric in metrics.items() if name != "ratio"}
    if "ratio" in metrics:
        shown["ratio_mean"] = shown["ratio_max"] = metrics["ratio"].detach()
    return LossOutput(terms=[Term(name="policy", value=value, mask=mask)], metrics=shown)


def rows_of(figure: float | Tensor, like: Tensor) -> Tensor:
    """One figure of the whole minibatch as a metric of each row, [B]."""
    return torch.as_tensor(figure, dtype=like.dtype, device=like.device).expand(len(like))
