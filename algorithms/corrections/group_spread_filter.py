"""A filter of groups: only those whose rewards differ most are trained (SPEAR)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.corrections.filters import only_demonstrations, without
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import group_centred, group_sum
from rlkit.registry import register


class GroupSpreadFilterConfig(PartConfig):
    """Settings of the filter."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of the groups of new responses that stays, rounded down in each minibatch, but at least
    one group of it."""


def least_spread(reward: Tensor, group: Tensor, live: Tensor, share: float) -> Tensor:
    """Which live rows belong to the groups of smallest spread, [B] bool.

    `reward`, `group` and `live` (bool) are [B]; rows that are not live are in no group. The groups
    that stay are the max(1, floor(share * groups)) of largest standard deviation; of equal ones,
    those of lower number.
    """
    apart = torch.where(live, group, -1 - torch.arange(len(group), device=group.device))
    size = group_sum(torch.ones_like(reward), apart)
    spread = (group_sum(group_centred(reward, apart).square(), apart) / size).sqrt()
    same = (apart[:, None] == apart) & live
    first = live & ~(same.tril(-1)).any(-1)
    ahead = (spread > spread[:, None]) | ((spread == spread[:, None]) & (apart < apart[:, None]))
    rank = (ahead & first).sum(-1)
    kept = (first.sum().double() * share + 1e-9).floor().clamp(min=1)
    return live & (rank >= kept)


@register("correction", "group_spread_filter")
class GroupSpreadFilter(Correction[GroupSpreadFilterConfig]):
    """Groups whose rewards differ least leave the mask, and so the denominators.

    They say little about which responses are better, and their noise is as large as that of
    others. Replayed responses, and demonstrations that stand alone in their group, stay and are in
    no count. Source: arXiv:2509.22601.

    Status: adapted. Public code: TencentYoutuResearch/SPEAR keeps the 0.75 of a step's groups of
    largest standard deviation before it computes advantages; here they are chosen among those of a
    minibatch, which is the same if a step has one, and stay in the statistics of the advantage.
    Each minibatch rounds down for itself: of 8 groups 6 stay, in 4 minibatches of 2 groups 4.
    """

    sources = ("2509.22601",)
    scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        live = batch.mask.any(-1) & ~batch.replayed & ~only_demonstrations(batch)
        return without(batch, least_spread(batch.reward, batch.group, live, self.config.share))
