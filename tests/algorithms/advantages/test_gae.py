"""GAE by hand, and what the critic is fitted to."""

from __future__ import annotations

import pytest
import torch

from algorithms.advantages.gae import gae
from rlkit.registry import build
from rlkit.testing.advantages import examples
from tests.algorithms.advantages.hand import row


def test_gae_by_hand() -> None:
    """gamma 1/2, lambda 1/2: delta = (0 + 1 - 1, 0 + 2 - 2, 8 - 4), A_t = delta_t + A_{t+1} / 4."""
    found = gae(row(0, 0, 8), row(1, 2, 4), torch.ones(1, 3).bool(), 0.5, 0.5)
    assert found.tolist() == [[0.25, 1.0, 4.0]]


def test_gae_skips_masked_tokens() -> None:
    """Values and running sums of a response with a hole are those of the response without it."""
    mask = torch.tensor([[True, False, True, True, False]])
    found = gae(row(0, 99, 0, 8, 99), row(1, 99, 2, 4, 99), mask, 0.5, 0.5)
    assert found.tolist() == [[0.25, 0, 1.0, 4.0, 0]]


def test_with_gamma_and_lambda_one_the_advantage_is_the_return_less_the_value() -> None:
    b = examples()
    out = build("advantage", "gae", whiten=False)(b)
    expected = torch.where(b.mask, b.reward[:, None] - b.values, 0.0)
    torch.testing.assert_close(out.advantage, expected)
    torch.testing.assert_close(out.returns, torch.where(b.mask, b.reward[:, None], 0.0))


def test_whitening_leaves_mean_zero_and_variance_one_and_the_returns_alone() -> None:
    b = examples()
    plain, white = (build("advantage", "gae", whiten=w)(b) for w in (False, True))
    valid = white.advantage[b.mask]
    assert float(valid.mean()) == pytest.approx(0, abs=1e-12)
    assert float(valid.var()) == pytest.approx(1, rel=1e-6)
    assert torch.equal(plain.returns, white.returns)


def test_the_critic_is_held_near_its_old_value() -> None:
    """Return 10, old value 0, clip 1/2: at 2 the loss is that of 1/2 and the gradient gone; at 1/4
    neither.
    """
    values = row(2.0, 0.25, -1.0).requires_grad_()
    estimator = build("advantage", "gae", value_clip=0.5)
    loss, clipped = estimator.value_loss(values, row(0, 0, 0), row(10, 10, 10))
    assert loss.tolist()[0] == pytest.approx([9.5**2 / 2, 9.75**2 / 2, 11**2 / 2])
    assert clipped.tolist() == [[1, 0, 0]]
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    assert gradient.tolist()[0] == pytest.approx([0, -9.75, -11])
