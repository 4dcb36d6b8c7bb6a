"""Responses that leave the mask, by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.registry import build
from rlkit.testing.losses import examples
from tests.algorithms.corrections.hand import MASK, K, apply, batch_of


def test_responses_cut_at_the_limit_leave_the_mask() -> None:
    logp, batch = batch_of(K, truncated=torch.tensor([False, True]))
    out = apply(build("correction", "overlong_filter"), logp, batch)
    assert torch.equal(out.batch.mask, MASK & torch.tensor([[True], [False]]))
    assert out.weight.tolist() == [[1] * 3, [0] * 3]


def test_groups_without_an_advantage_leave_the_mask_whole() -> None:
    """Group 0 has one response with A != 0 and stays; in group 1 only a masked token has one."""
    logp, batch = examples(frozenset())
    advantage = torch.zeros_like(logp)
    advantage[3] = 1.0
    advantage[5, 5] = 1.0
    assert not batch.mask[5, 5]
    out = apply(
        build("correction", "zero_variance_filter"), logp, replace(batch, advantage=advantage)
    )
    assert torch.equal(out.batch.mask, batch.mask & (batch.group == 0)[:, None])
    assert out.weight[:, 0].tolist() == [1] * 4 + [0] * 4


def test_demonstrations_alone_in_their_group_stay_whatever_their_advantage() -> None:
    """Group 1 is four demonstrations; one among the responses of group 0 goes with them."""
    logp, batch = examples(frozenset())
    expert = torch.tensor([False] * 3 + [True] * 5)
    given = replace(batch, advantage=torch.zeros_like(logp), expert=expert)
    out = apply(build("correction", "zero_variance_filter"), logp, given)
    assert torch.equal(out.batch.mask, batch.mask & (batch.group == 1)[:, None])
