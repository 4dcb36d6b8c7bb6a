"""What losses on a ratio share: the denominator, the clip's gradient and the output's metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.ratio import RatioConfig, in_clip, policy_output, rows_of
from rlkit.registry import build
from rlkit.testing.losses import examples


def test_the_clip_drops_what_has_moved_too_far_in_the_direction_of_its_advantage() -> None:
    """A zero advantage is dropped on neither side; the bounds themselves are inside."""
    ratio = torch.tensor([0.5, 0.8, 1.0, 1.2, 1.5])
    kept = {a: in_clip(ratio, torch.full((5,), a), 0.8, 1.2).tolist() for a in (1.0, -1.0, 0.0)}
    assert kept == {1.0: [1, 1, 1, 1, 0], -1.0: [0, 1, 1, 1, 1], 0.0: [1, 1, 1, 1, 1]}


def test_the_ratio_is_shown_by_its_mean_and_its_maximum_and_nothing_shown_has_a_gradient() -> None:
    ratio = torch.tensor([[1.0, 2.0]], requires_grad=True)
    value, mask = 2 * ratio, torch.tensor([[True, False]])
    out = policy_output(value, mask, ratio=ratio, clip_fraction=ratio - 1)
    (term,) = out.terms
    assert term.name == "policy" and term.value is value and term.mask is mask
    assert out.metrics.keys() == {"ratio_mean", "ratio_max", "clip_fraction"}
    assert out.metrics["ratio_mean"].tolist() == out.metrics["ratio_max"].tolist() == [[1, 2]]
    assert not any(metric.requires_grad for metric in out.metrics.values())
    assert policy_output(value, mask).metrics == {}


@pytest.mark.parametrize("figure", [0.25, torch.tensor(0.25, dtype=torch.float64)])
def test_a_figure_of_the_minibatch_stands_in_each_row(figure: float | torch.Tensor) -> None:
    found = rows_of(figure, torch.ones(3, 2))
    assert found.tolist() == [0.25] * 3 and found.dtype == torch.float32


@pytest.mark.parametrize(("to", "shift"), [("prox", 1.0), ("behavior", 2.0)])
def test_the_denominator_is_a_setting(to: str, shift: float) -> None:
    loss = build("loss", "importance_sampling", ratio_to=to)
    logp, batch = examples(frozenset())
    batch = replace(batch, prox_logp=logp - 1, behavior_logp=logp - 2)
    assert loss.needs == {to} and torch.equal(loss.other(batch), logp - shift)
    assert RatioConfig().ratio_to == "prox"
