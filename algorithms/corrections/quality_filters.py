"""Filters of responses that teach nothing: void turns, repetitions, what is no text (SPEAR)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.corrections.filters import without
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.interfaces import Correction, PartConfig
from rlkit.registry import register

VOID_TURNS, UNREADABLE = "void_turns", "unreadable"
"""The count of an episode, and the reward, that the filters read."""
BASE = 6364136223846793005
"""Of the numbers of n-grams: odd, and large, so that unlike n-grams get unlike numbers."""


@register("correction", "void_turn_filter")
class VoidTurnFilter(Correction):
    """Responses with a turn that says and calls nothing leave the mask.

    Such a turn ends an episode without an answer, and says of the turns before it nothing that a
    gradient should follow. They stay in the group statistics of the advantage. A response without
    an environment has no turns, and stays. Source: arXiv:2509.22601.

    Status: adapted. Public code: TencentYoutuResearch/SPEAR takes out responses without a final
    answer, or, in games, turns without an action; here a turn is void as environments count it.
    """

    sources = ("2509.22601",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        void = batch.extras.get(VOID_TURNS, torch.zeros_like(batch.reward))
        return without(batch, void > 0)


class RepetitiveFilterConfig(PartConfig):
    """Settings of the filter of repetitions."""

    n: Annotated[int, Field(ge=1)] = 20
    """Tokens of an n-gram."""
    times: Annotated[int, Field(ge=2)] = 10
    """How often an n-gram occurs in a response that is repetitive, overlaps counted."""


def repetitive(ids: Tensor, own: Tensor, n: int, times: int) -> Tensor:
    """Whether an n-gram of a row's own tokens occurs `times` times or more, [B] bool.

    `ids` and `own` are [B, T]. N-grams are compared by numbers of 64 bits.
    """
    windows = ids.shape[1] - n + 1
    if windows < times:
        return torch.zeros_like(own[:, 0])
    numbers, whole = torch.zeros_like(ids[:, :windows]), torch.ones_like(own[:, :windows])
    for place in range(n):
        numbers = numbers * BASE + ids[:, place : place + windows] + 1
        whole = whole & own[:, place : place + windows]
    alone = -torch.arange(1, windows + 1, device=ids.device)
    ordered = torch.where(whole, numbers, alone).sort(-1).values
    return (ordered[:, times - 1 :] == ordered[:, : windows - times + 1]).any(-1)


@register("correction", "repetitive_filter")
class RepetitiveFilter(Correction[RepetitiveFilterConfig]):
    """Responses in which one n-gram of tokens occurs again and again leave the mask.

    They stay in the group statistics of the advantage. Source: arXiv:2509.22601.

    Status: adapted. Public code: TencentYoutuResearch/SPEAR, 20 tokens 10 times; it counts the
    tokens that tools answered too, where here an n-gram is of the policy's own.
    """

    sources = ("2509.22601",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        c = self.config
        return without(batch, repetitive(batch.response_ids, batch.mask, c.n, c.times))


@register("correction", "unreadable_filter")
class UnreadableFilter(Correction):
    """Responses that are no text leave the mask: those to which reward=unreadable gives 1.

    They stay in the group statistics of the advantage. The run needs that reward, whose weight is 0
    by default: `reward=[...,unreadable]`. Source: arXiv:2509.22601.

    Public code: TencentYoutuResearch/SPEAR, see `reward=unreadable`.
    """

    sources = ("2509.22601",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T].

        Raises UserError in a run without that reward.
        """
        if batch.rewards and UNREADABLE not in batch.rewards:
            raise UserError(
                "correction=unreadable_filter reads the reward 'unreadable', which the run does "
                f"not have; add it: reward=[{','.join((*batch.rewards, UNREADABLE))}]"
            )
        found = batch.rewards.get(UNREADABLE, torch.zeros_like(batch.reward))
        return without(batch, found > 0)
