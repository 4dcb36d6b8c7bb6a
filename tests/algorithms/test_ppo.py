"""The clipped surrogate by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.ppo import clipped_surrogate
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples
from tests.algorithms.tokens import LOG_RATIO, pushes, tokens

RATIO = [0.5, 0.9, 1.0, 1.1, 1.5, 4.0]


def surrogate(advantage: float, **options: float) -> tuple[list[float], list[float], list[float]]:
    """Values, clip indicator and gradients at RATIO, with bounds 0.8 and 1.2."""
    ratio = torch.tensor(RATIO, dtype=torch.float64, requires_grad=True)
    value, clipped = clipped_surrogate(
        ratio, torch.full_like(ratio, advantage), 0.8, 1.2, **options
    )
    (gradient,) = torch.autograd.grad(value.sum(), ratio)
    return value.tolist(), clipped.tolist(), gradient.tolist()


def test_a_positive_advantage_stops_pushing_above_the_upper_bound() -> None:
    value, clipped, gradient = surrogate(2.0)
    assert value == pytest.approx([-1.0, -1.8, -2.0, -2.2, -2.4, -2.4])
    assert clipped == [0, 0, 0, 0, 1, 1]
    assert gradient == [-2, -2, -2, -2, 0, 0]


def test_a_negative_advantage_stops_pushing_below_the_lower_bound_and_nowhere_else() -> None:
    value, clipped, gradient = surrogate(-2.0)
    assert value == pytest.approx([1.6, 1.8, 2.0, 2.2, 3.0, 8.0])
    assert clipped == [1, 0, 0, 0, 0, 0]
    assert gradient == [0, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("option", ["dual_clip", "delta"])
def test_both_caps_bound_the_loss_of_a_negative_advantage(option: str) -> None:
    """At ratio 4 the loss stays at 3 |A| = 6, without gradient; A > 0 is untouched."""
    value, clipped, gradient = surrogate(-2.0, **{option: 3.0})
    assert value == pytest.approx([1.6, 1.8, 2.0, 2.2, 3.0, 6.0])
    assert clipped == [1, 0, 0, 0, 0, 1]
    assert gradient == [0, 2, 2, 2, 2, 0]
    assert surrogate(2.0, **{option: 3.0}) == surrogate(2.0)


def test_a_zero_advantage_neither_pushes_nor_counts_as_clipped() -> None:
    value, clipped, gradient = surrogate(0.0, dual_clip=3.0, delta=2.0)
    assert value == clipped == gradient == [0.0] * len(RATIO)


def test_the_names_differ_in_aggregation_alone() -> None:
    """Dr. GRPO's constant length is max_completion_length, whatever the padding."""
    logp, batch = examples(frozenset())
    tokens, rows = batch.mask.sum(), len(batch.mask)
    values, _ = clipped_surrogate((logp - batch.prox_logp).exp(), batch.advantage, 0.8, 1.2)
    per_row = torch.where(batch.mask, values, 0.0).sum(-1)
    expected = {
        "ppo": per_row.sum() / tokens,
        "grpo": (per_row / batch.mask.sum(-1)).sum() / rows,
        "dr_grpo": per_row.sum() / rows / 100,
    }
    for name, value in expected.items():
        found, _ = loss_value(build("loss", name), logp, batch, max_completion_length=100)
        torch.testing.assert_close(found, value)


def test_ratios_beyond_the_clamp_have_no_gradient() -> None:
    logp, batch = examples(frozenset())
    far = (batch.prox_logp + 21).requires_grad_()
    negative = replace(batch, advantage=-torch.ones_like(logp))
    value, _ = loss_value(build("loss", "ppo", log_ratio_clamp=20.0), far, negative)
    torch.testing.assert_close(value.detach(), torch.tensor(20.0).double().exp())
    assert (torch.autograd.grad(value, far)[0] == 0).all()


def test_a_cap_inside_the_clip_window_is_refused() -> None:
    with pytest.raises(UserError, match=r"delta=1\.1 must be above 1 \+ clip_high"):
        build("loss", "ppo", delta=1.1)


def test_reinforce_pp_is_the_token_clip_of_ppo() -> None:
    logp, batch = tokens(LOG_RATIO, 1.0)
    for advantage in (1.0, -1.0):
        moved = replace(batch, advantage=batch.advantage * advantage)
        expected = pushes("ppo", logp, moved)
        assert torch.equal(pushes("reinforce_pp", logp, moved), expected)
        assert (expected == 0).sum() == 1
