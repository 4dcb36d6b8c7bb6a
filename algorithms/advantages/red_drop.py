"""Extra negatives leave the batch, RED-Drop (arXiv:2509.24203)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred, group_sum, hash_uniform, sequence_sum
from rlkit.registry import register


def balanced(centred: Tensor, group: Tensor, order: Tensor) -> Tensor:
    """Which responses stay, [B] bool: the first extra negatives of a group in `order` [B] leave.

    Negative is below the group's mean. As many negatives as others stay, or all if there are fewer.
    """
    negative = centred < 0
    extra = group_sum(torch.where(negative, 1.0, -1.0), group)
    place = torch.argsort(torch.argsort(order, stable=True), stable=True)
    earlier = (group[:, None] == group) & negative & (place < place[:, None])
    return ~(negative & (earlier.sum(-1) < extra))


class RedDropConfig(SingletonConfig):
    """Settings of the choice."""

    drop: Literal["balance"] | None = "balance"
    """balance = negatives leave until a group has no more of them than others; null = none do."""
    drop_choice: Literal["random", "first_negatives_in_index_order"] = "random"
    """Which negatives leave. Random ones are drawn by a hash of the response's behavior log-probs,
    so that a resumed run draws the same."""


@register("advantage", "red_drop")
class RedDropAdvantage(AdvantageEstimator[RedDropConfig]):
    """A = R - mean(R_kept), 0 for the dropped, where each group drops its surplus of negatives.

    On off-policy data negative responses do the harm, so no more of them are kept than positives
    (arXiv:2509.24203). Dropped responses stay in the loss's denominators.

    Public code: agrees with Trinity-RFT's rec advantage with drop="balance", whose random draw is
    another. Its std_normalize is not part of RED-Drop.
    """

    sources = ("2509.24203",)
    min_group = 2
    needs = frozenset({"behavior"})

    def kept(self, b: AdvantageBatch) -> Tensor:
        """Which responses stay, [B] bool."""
        if self.config.drop is None:
            return torch.ones_like(b.group, dtype=torch.bool)
        order = torch.arange(len(b.group), device=b.group.device).double()
        if self.config.drop_choice == "random":
            order = torch.frac(sequence_sum(hash_uniform(b.behavior_logp), b.mask))
        return balanced(group_centred(b.reward, b.group), b.group, order)

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        kept = self.kept(b)
        centred = torch.where(kept, group_centred(b.reward, b.group), 0.0)
        mean = group_sum(centred, b.group) / group_sum(kept.to(centred.dtype), b.group)
        advantage = torch.where(kept, centred - mean, 0.0)
        return outcome(
            lonely(advantage, b.reward, b.group, self.config.singleton),
            b,
            {"advantage/dropped": float((~kept).sum())},
        )
