"""The groups whose rewards differ least leave the mask, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithms.corrections.group_spread_filter import least_spread
from rlkit.batch import LossBatch
from rlkit.registry import build
from rlkit.testing.losses import examples
from tests.algorithms.corrections.hand import apply

REWARD = torch.tensor([1.0, 0, 1, 1, 5, 1, 0.5, 0])
GROUP = torch.tensor([4, 4, 2, 2, 9, 9, 7, 7])  # deviations 0.5, 0, 2, 0.25


@pytest.mark.parametrize(
    ("share", "gone"),
    [(1.0, set()), (0.75, {2}), (0.7, {2, 7}), (0.25, {2, 7, 4}), (0.1, {2, 7, 4})],
)
def test_the_share_of_largest_spread_stays(share: float, gone: set[int]) -> None:
    """floor(0.7 * 4) is two groups, floor(0.1 * 4) is none, and one stays."""
    found = least_spread(REWARD, GROUP, torch.ones(8, dtype=torch.bool), share)
    assert {int(g) for g in GROUP[found]} == gone and int(found.sum()) == 2 * len(gone)


def test_of_equal_spreads_the_lower_number_stays_whatever_the_order() -> None:
    reward, group = torch.tensor([1.0, 0, 1, 0]), torch.tensor([1, 1, 0, 0])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found = least_spread(reward[order], group[order], torch.ones(4, dtype=torch.bool), 0.5)
        assert found.tolist() == (group[order] == 1).tolist()


def test_rows_that_are_not_live_count_nowhere() -> None:
    """Without one of its responses group 9 has no spread; without group 2 there are three."""
    live = torch.tensor([True] * 5 + [False] + [True] * 2)
    assert set(GROUP[least_spread(REWARD, GROUP, live, 0.5)].tolist()) == {2, 9}
    live = GROUP != 2
    assert set(GROUP[least_spread(REWARD, GROUP, live, 0.67)].tolist()) == {7}


def test_replayed_groups_stay() -> None:
    """Of the new responses' two groups the one of larger spread stays."""
    logp, batch = examples(frozenset())
    four = replace(
        batch,
        group=torch.arange(8) // 2,
        replayed=torch.arange(8) // 2 % 2 == 1,
        reward=torch.tensor([1.0, 0, 0, 0, 1, 0.5, 0, 0]).double(),
    )
    out = apply(build("correction", "group_spread_filter", share=0.5), logp, four)
    assert torch.equal(out.batch.mask, batch.mask & (four.group != 2)[:, None])
    assert build("correction", "group_spread_filter").config.share == 0.75


def with_demonstrations() -> tuple[Tensor, LossBatch]:
    """CHORD's batch: 8 groups of 4 responses, and 2 demonstrations, each a group of its own."""
    logp, batch = examples(frozenset())
    rows = torch.arange(34)
    reward = (rows % 4 < rows // 4 % 3).double()  # of the 8 groups those of number 0, 3, 6 have 0
    expert = rows > 31
    return logp[rows % 8], replace(
        batch.rows(rows % 8),
        group=torch.where(expert, rows - 24, rows // 4),
        expert=expert,
        reward=torch.where(expert, 1.0, reward),
        replayed=torch.zeros_like(expert),
        advantage=torch.where(expert, 0.0, reward - 0.25)[:, None].expand(34, 6),
    )


def test_demonstrations_alone_in_their_group_stay_and_are_in_no_count() -> None:
    """6 of the 8 groups of new responses stay, which is 0.75 of them."""
    logp, batch = with_demonstrations()
    out = apply(build("correction", "group_spread_filter"), logp, batch)
    assert torch.equal(out.batch.mask[32:], batch.mask[32:])
    kept = batch.group[out.batch.mask.any(-1)]
    assert set(kept.tolist()) == {0, 1, 2, 4, 5, 7, 8, 9}


def test_a_demonstration_in_a_mixed_group_goes_with_it() -> None:
    logp, batch = with_demonstrations()
    mixed = replace(batch, expert=torch.arange(34) == 24, reward=torch.zeros_like(batch.reward))
    out = apply(build("correction", "group_spread_filter", share=0.1), logp, mixed)
    assert set(batch.group[out.batch.mask.any(-1)].tolist()) == {0}, "of equal ones the first"
