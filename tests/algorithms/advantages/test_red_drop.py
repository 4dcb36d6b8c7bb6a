"""RED-Drop: which negatives leave, and the baseline of what is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlkit.batch import AdvantageBatch
from rlkit.registry import build
from tests.algorithms.advantages.hand import batch_of, estimate, one_a_row

FIRST = "first_negatives_in_index_order"


def test_extra_negatives_leave_and_the_baseline_is_that_of_the_kept() -> None:
    """1 positive and 3 negatives: the first two negatives leave, the mean of 1 and 0 is 1/2. In the
    other group, mean 2/3, there are 2 positives and 1 negative: nothing leaves.
    """
    out = estimate("red_drop", [1, 1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0], drop_choice=FIRST)
    assert one_a_row(out) == pytest.approx([1 / 2, 1 / 3, 0, -2 / 3, 0, 1 / 3, -1 / 2])
    assert out.metrics == {"advantage/dropped": 2.0}


def test_positives_are_at_least_the_mean() -> None:
    """Rewards 2, 2, 0.5, 0: mean 1.125, two positives and two negatives; 2, 1, 0: the mean itself
    counts as positive.
    """
    for rewards in ([2.0, 2.0, 0.5, 0.0], [2.0, 1.0, 0.0]):
        out = estimate("red_drop", rewards, [0] * len(rewards), drop_choice=FIRST)
        assert out.metrics["advantage/dropped"] == 0


def test_without_drop_it_is_the_group_mean() -> None:
    out = estimate("red_drop", [1, 0, 0, 0], [0] * 4, drop=None)
    assert one_a_row(out) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert out.metrics["advantage/dropped"] == 0


def drawn(seed: int, lengths: list[int]) -> tuple[AdvantageBatch, list[bool]]:
    generator = torch.Generator().manual_seed(seed)
    logp = -torch.rand(4, 2, generator=generator, dtype=torch.float64)
    mask = torch.arange(2) < torch.tensor(lengths)[:, None]
    b = replace(batch_of([1, 0, 0, 0], [0] * 4), behavior_logp=logp, mask=mask)
    return b, build("advantage", "red_drop").kept(b).tolist()


def test_the_random_choice_is_fair_whatever_the_lengths() -> None:
    """Each of three negatives, of 1, 2 and 2 tokens, stays in a third of 600 draws (+-5 sigma)."""
    stays = torch.tensor([drawn(seed, [2, 1, 2, 2])[1] for seed in range(600)]).double()
    assert (stays.sum(-1) == 2).all() and (stays[:, 0] == 1).all()
    assert (stays[:, 1:].mean(0) - 1 / 3).abs().max() < 5 * (2 / 9 / 600) ** 0.5


def test_the_random_choice_follows_the_response_and_not_its_place() -> None:
    order = torch.tensor([2, 0, 3, 1])
    for seed in range(20):
        b, kept = drawn(seed, [2, 2, 2, 2])
        moved = replace(
            b, reward=b.reward[order], behavior_logp=b.behavior_logp[order], mask=b.mask[order]
        )
        again = build("advantage", "red_drop").kept(moved).tolist()
        assert again == [kept[i] for i in order.tolist()]
