"""What estimators with one reward per response share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from algorithms.advantages.group_norm import Singleton
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import PartConfig
from rlkit.ops import group_centred, group_size, over_tokens


class SingletonConfig(PartConfig):
    """Settings of a baseline that needs other responses of the group."""

    singleton: Singleton = "raw_score"
    """What a response alone in its group gets: its reward (verl, Trinity-RFT), or 0."""


def outcome(
    advantage: Tensor, b: AdvantageBatch, metrics: Mapping[str, float] | None = None
) -> AdvantageOutput:
    """One advantage per response [B], on each of its tokens; the returns are the rewards."""
    return AdvantageOutput(
        advantage=over_tokens(advantage, b.mask),
        returns=over_tokens(b.reward, b.mask),
        metrics=metrics or {},
    )


def lonely(advantage: Tensor, reward: Tensor, group: Tensor, singleton: Singleton) -> Tensor:
    """The advantage [B], but what `singleton` says for a response alone in its group."""
    alone = group_size(group, reward.dtype) == 1
    return torch.where(alone, reward if singleton == "raw_score" else 0.0, advantage)


def standardized(x: Tensor, eps: float, *, unbiased: bool = True) -> Tensor:
    """(x - mean) / (std + eps) over all of x [B], exactly 0 where all are equal."""
    centred = group_centred(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
    variance = centred.square().sum() / max(1, len(x) - int(unbiased))
    return centred / (variance.sqrt() + eps)
