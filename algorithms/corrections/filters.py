"""Filters that take whole responses or groups out of the loss (arXiv:2503.14476)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction
from rlkit.ops import group_max
from rlkit.registry import register


def without(batch: LossBatch, rows: Tensor) -> Corrected:
    """The batch with `rows` [B] bool out of its mask; weight 0 there and 1 elsewhere."""
    kept = (~rows)[:, None]
    weight = kept.to(batch.advantage.dtype).expand_as(batch.advantage)
    return Corrected(batch=replace(batch, mask=batch.mask & kept), weight=weight)


def only_demonstrations(batch: LossBatch) -> Tensor:
    """Which rows are in groups without a response of the policy, [B] bool."""
    return group_max((~batch.expert).to(batch.reward.dtype), batch.group) == 0


@register("correction", "overlong_filter")
class OverlongFilter(Correction):
    """Responses that were cut at the length limit leave the mask.

    Their reward says that no answer was reached, not that the reasoning was bad; DAPO calls it
    overlong filtering (arXiv:2503.14476, section 3.4). They stay in the group statistics of the
    advantage. Its other remedy, a soft punishment, is reward=overlong.

    Public code: agrees with TRL's mask_truncated_completions.
    """

    sources = ("2503.14476",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        return without(batch, batch.truncated)


@register("correction", "zero_variance_filter")
class ZeroVarianceFilter(Correction):
    """Groups whose advantages are all 0 leave the mask, and so the denominators.

    What is left of DAPO's dynamic sampling (arXiv:2503.14476, Eq. 11) when no prompts are drawn in
    their place: the gradient does not shrink with the share of prompts that are all solved or all
    failed. Demonstrations that stand alone in their group stay: they are imitated, whatever their
    advantage.

    Public code: verl's filter_groups and DAPO drop such groups and generate others until the batch
    is full; a mask alone trains on fewer responses.
    """

    sources = ("2503.14476",)

    scope = "group"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        live = ((batch.advantage != 0) & batch.mask).any(-1) | only_demonstrations(batch)
        return without(batch, group_max(live.to(batch.reward.dtype), batch.group) == 0)
