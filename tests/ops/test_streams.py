"""Draws that depend on nothing but their arguments, and falling shares without rounding noise."""

from __future__ import annotations

import pytest
import torch

from rlkit.ops import hash_uniform, staircase, stream_rng, stream_seed


@pytest.mark.parametrize(
    ("step", "share"),
    [(1, 1.0), (5, 1.0), (6, 0.9), (7, 0.9), (8, 0.8), (11, 0.7), (25, 0.0), (99, 0.0)],
)
def test_a_staircase_falls_after_its_start(step: int, share: float) -> None:
    assert staircase(step, start=5, interval=2, decrement=0.1, floor=0.0) == share


def test_a_staircase_ends_at_its_floor() -> None:
    assert staircase(99, start=0, interval=1, decrement=0.3, floor=0.25) == 0.25


def test_seeds_are_those_of_their_stream_in_every_version() -> None:
    """The first 8 bytes of SHA-256 of "0/buffer/3", without the lowest bit: runs repeat by it."""
    assert stream_seed(0, "buffer", 3) == 6843715002496229216
    assert 0 <= stream_seed(2**40, "x") < 2**63


def test_streams_differ_in_every_argument() -> None:
    seeds = [
        stream_seed(0, "a", 1, 2),
        stream_seed(1, "a", 1, 2),
        stream_seed(0, "b", 1, 2),
        stream_seed(0, "a", 1, 3),
        stream_seed(0, "a", 12),
        stream_seed(0, "a"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_generator_is_that_of_its_seed() -> None:
    first, again = stream_rng(3, "x", 1).random(4), stream_rng(3, "x", 1).random(4)
    assert (first == again).all()
    assert (first != stream_rng(3, "x", 2).random(4)).any()


def test_a_hash_is_decided_by_the_value_alone() -> None:
    x = torch.linspace(-5, 5, 2001)
    found = hash_uniform(x)
    assert torch.equal(hash_uniform(x[[7, 3]]), found[[7, 3]])
    assert ((found >= 0) & (found < 1)).all()
    assert not hash_uniform(x.clone().requires_grad_()).requires_grad


def test_hashes_are_spread_evenly() -> None:
    """Of 2001 numbers each tenth of [0, 1) holds 200, give or take 6 standard deviations of 13."""
    found = hash_uniform(torch.linspace(-5, 5, 2001))
    counts = torch.histc(found, bins=10, min=0, max=1)
    assert ((counts > 120) & (counts < 280)).all()
