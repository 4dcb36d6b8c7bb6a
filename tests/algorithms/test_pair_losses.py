"""The losses on a pair, by hand: w = 4, l = 0.5, so h = 3.5."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithms.pair_losses import PAIR_LOSSES, Pair, Shape


def double(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pair_of(w: Tensor, l: Tensor, **fields: Tensor) -> Pair:  # noqa: E741
    """Pairs of two rows each, chosen first."""
    both = [x.repeat_interleave(2) for x in (w, l)]
    margin = both[0] - both[1]
    made = Pair(
        w=both[0],
        l=both[1],
        policy=margin,
        reference=torch.zeros_like(margin),
        at=torch.arange(2 * len(w)) % 2 == 0,
        group=torch.arange(2 * len(w)) // 2,
    )
    return replace(made, **fields)


def exo(x: float, e: float) -> float:
    """KL of (s(x), s(-x)) from (1 - e, e)."""
    return s(x) * math.log(s(x) / (1 - e)) + s(-x) * math.log(s(-x) / e)


def disco(x: float, tau: float) -> float:
    blend = s(x / tau)
    return -(1 - blend) * math.log(s(x)) + blend * math.exp(-x)


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("sigmoid", Shape(beta=0.1), -math.log(s(0.35))),
        (
            "sigmoid",
            Shape(beta=0.1, smoothing=0.2),
            -0.8 * math.log(s(0.35)) - 0.2 * math.log(s(-0.35)),
        ),
        ("sigmoid_norm", Shape(beta=0.1), -math.log(s(0.35))),
        (
            "robust",
            Shape(beta=0.1, smoothing=0.1),
            (-0.9 * math.log(s(0.35)) + 0.1 * math.log(s(-0.35))) / 0.8,
        ),
        ("hinge", Shape(beta=0.1), 0.65),
        ("hinge", Shape(beta=1.0), 0.0),
        ("ipo", Shape(beta=0.2), 1.0),
        ("exo_pair", Shape(beta=0.1, smoothing=1e-3), exo(0.35, 1e-3)),
        (
            "nca_pair",
            Shape(beta=0.1),
            -math.log(s(0.4)) - 0.5 * math.log(s(-0.4)) - 0.5 * math.log(s(-0.05)),
        ),
        ("bco_pair", Shape(beta=0.1), -math.log(s(0.4)) - math.log(s(-0.05))),
        ("sppo_hard", Shape(beta=0.5), 9.0 + 2.25),
        ("aot", Shape(beta=0.1), -math.log(s(0.35))),
        ("aot_unpaired", Shape(beta=0.1), -math.log(s(0.35))),
        ("apo_zero", Shape(beta=0.1), s(-0.4) + s(0.05)),
        ("apo_down", Shape(beta=0.1), s(0.4) + s(-0.35)),
        ("discopop", Shape(beta=0.1, tau=0.5), disco(0.35, 0.5)),
        ("anchored", Shape(beta=0.1), -math.log(s(0.4))),
    ],
)
def test_a_pair_by_hand(kind: str, shape: Shape, expected: float) -> None:
    found = PAIR_LOSSES[kind](pair_of(double(4.0), double(0.5)), shape)
    assert found.tolist() == pytest.approx([expected] * 2)


def test_robust_undoes_labels_that_are_flipped_with_a_known_probability() -> None:
    """Of labels flipped with probability e, the expected loss is that of the clean ones."""
    e, shape = 0.1, Shape(beta=0.5, smoothing=0.1)
    right, flipped = (
        PAIR_LOSSES["robust"](pair_of(*x), shape)[0]
        for x in ((double(4.0), double(0.5)), (double(0.5), double(4.0)))
    )
    clean = PAIR_LOSSES["sigmoid"](pair_of(double(4.0), double(0.5)), Shape(beta=0.5))[0]
    torch.testing.assert_close((1 - e) * right + e * flipped, clean)


def test_aot_compares_what_is_ranked_alike() -> None:
    """Margins 3, -1, 2 of the policy and 0, 1, -2 of the reference are sorted apart: -1 and -2, 2
    and 0, 3 and 1 are compared, so the differences are 1, 2, 2."""
    pairs = pair_of(double(3.0, -1.0, 2.0), double(0.0, 0.0, 0.0))
    reference = double(0.0, 1.0, -2.0).repeat_interleave(2)
    found = PAIR_LOSSES["aot"](replace(pairs, reference=reference), Shape(beta=1.0))[::2]
    expected = [-math.log(s(1.0)), -math.log(s(2.0)), -math.log(s(2.0))]
    assert sorted(found.tolist(), reverse=True) == pytest.approx(expected)
    pairs = pair_of(double(3.0, -1.0, 2.0), double(0.0, 1.0, -2.0))
    found = PAIR_LOSSES["aot_unpaired"](pairs, Shape(beta=1.0))[::2]
    assert sorted(found.tolist(), reverse=True) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["aot", "aot_unpaired"])
def test_rows_of_no_pair_are_not_ranked(kind: str) -> None:
    """Their log-ratios are 0, which would stand between a positive and a negative one."""
    alone = pair_of(double(3.0, -1.0), double(0.5, 0.2))
    beside = pair_of(double(3.0, 0.0, -1.0), double(0.5, 0.0, 0.2))
    at = beside.at & (beside.group != 1)
    leaf = beside.w.clone().requires_grad_()
    beside = replace(beside, w=leaf, policy=leaf - beside.l, at=at)
    found = PAIR_LOSSES[kind](beside, Shape(beta=0.3))
    expected = PAIR_LOSSES[kind](alone, Shape(beta=0.3))
    torch.testing.assert_close(found[[0, 1, 4, 5]], expected)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert gradient.isfinite().all() and gradient[2] == 0


@pytest.mark.parametrize("kind", PAIR_LOSSES)
@pytest.mark.parametrize("far", [1e4, -1e4])
def test_extreme_log_ratios_stay_finite(kind: str, far: float) -> None:
    leaf = double(far).requires_grad_()
    shape = Shape(beta=0.5, smoothing=0.1 if kind in ("robust", "exo_pair") else 0.0)
    (gradient,) = torch.autograd.grad(PAIR_LOSSES[kind](pair_of(leaf, -leaf), shape).sum(), leaf)
    assert gradient.isfinite().all()
