"""Void turns, repetitions and what is no text leave the mask, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.corrections.quality_filters import repetitive
from rlkit.errors import UserError
from rlkit.registry import build
from tests.algorithms.corrections.hand import MASK, K, apply, batch_of

SECOND_LEAVES = MASK & torch.tensor([[True], [False]])


def test_a_response_with_a_void_turn_leaves() -> None:
    """One without an environment, or without a void turn, stays."""
    part = build("correction", "void_turn_filter")
    logp, batch = batch_of(K, extras={"void_turns": torch.tensor([0.0, 1.0])})
    out = apply(part, logp, batch)
    assert torch.equal(out.batch.mask, SECOND_LEAVES) and out.weight.tolist() == [[1] * 3, [0] * 3]
    assert torch.equal(apply(part, *batch_of(K)).batch.mask, MASK)


def repeats(ids: list[int], n: int, times: int, shown: tuple[int, ...] = ()) -> bool:
    own = torch.tensor([[place not in shown for place in range(len(ids))]])
    return bool(repetitive(torch.tensor([ids]), own, n, times))


def test_n_grams_are_counted_with_overlaps_and_apart() -> None:
    assert repeats([1, 2, 9, 1, 2, 8, 1, 2], n=2, times=3)
    assert not repeats([1, 2, 9, 1, 2, 8, 1, 2], n=2, times=4)
    assert not repeats([1, 2, 9, 2, 1, 8, 1, 2], n=2, times=3), "the order counts"
    assert repeats([7, 7, 7, 7], n=2, times=3) and not repeats([7, 7, 7], n=2, times=3)
    assert not repeats([0, 1, 0, 0, 2, 0], n=3, times=2), "a token 0 has its place too"


def test_n_grams_with_a_token_that_was_shown_do_not_count() -> None:
    """However often an environment says the same; what is shown parts what is said."""
    assert not repeats([5, 6, 1, 5, 6, 2, 5, 6], n=2, times=3, shown=(0, 1, 3, 4, 6, 7))
    assert not repeats([5, 6, 1, 5, 6, 2, 5, 6], n=2, times=3, shown=(4,))
    assert repeats([5, 6, 1, 5, 6, 2, 5, 6], n=2, times=2, shown=(4,))


def test_numbers_of_long_n_grams_do_not_collide() -> None:
    """Rows of 20 tokens with one changed: 400 n-grams, no two alike."""
    rows = torch.arange(20).repeat(400, 1)
    for row in range(400):
        rows[row, row // 20] += 100 + row % 20
    flat = torch.cat([rows, torch.zeros(400, 1, dtype=torch.int64)], 1).flatten()[None]
    apart = (torch.arange(8400) % 21 != 20)[None]
    assert not repetitive(flat, apart, 20, 2)
    flat[0, :20] = flat[0, 21:41]
    assert repetitive(flat, apart, 20, 2)


def test_a_repetitive_response_leaves() -> None:
    part = build("correction", "repetitive_filter", n=1, times=3)
    logp, batch = batch_of(K, response_ids=torch.tensor([[4, 4, 4], [5, 5, 5]]))
    assert torch.equal(apply(part, logp, batch).batch.mask, SECOND_LEAVES), "two of row 0 are valid"
    config = build("correction", "repetitive_filter").config
    assert (config.n, config.times) == (20, 10)


def test_what_the_reward_finds_unreadable_leaves() -> None:
    part = build("correction", "unreadable_filter")
    logp, batch = batch_of(K, rewards={"unreadable": torch.tensor([0.0, 1.0])})
    assert torch.equal(apply(part, logp, batch).batch.mask, SECOND_LEAVES)
    with pytest.raises(UserError, match=r"does not have; add it: reward=\[exact,unreadable\]"):
        apply(part, logp, replace(batch, rewards={"exact": batch.reward}))
