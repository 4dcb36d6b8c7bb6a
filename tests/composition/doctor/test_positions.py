"""A difference is seen where it stands."""

from __future__ import annotations

import pytest
import torch

from rlkit.composition.doctor.positions import by_position, mean_of, worst_of
from tests.composition.doctor.patients import Change, each, patient_of


def first(logp: torch.Tensor) -> torch.Tensor:
    logp[0] += 0.5
    return logp


def last(logp: torch.Tensor) -> torch.Tensor:
    logp[-1] += 0.5
    return logp


def late(logp: torch.Tensor) -> torch.Tensor:
    logp[1:-1] += 0.1 * torch.arange(len(logp) - 2) / len(logp) if len(logp) > 2 else 0.0
    return logp


@pytest.mark.parametrize(
    ("change", "far", "near"),
    [
        (each(first), "first", "inner"),
        (each(last, lambda call, g: g.finish_reason == "stop" and len(g.logp) > 1), "end", "inner"),
        (each(late), "inner", "first"),
    ],
)
def test_by_place(change: Change, far: str, near: str) -> None:
    found = by_position(patient_of(change=change).scored)
    assert found[far] > 0.05
    assert found[near] < 1e-4
    assert found["max"] == pytest.approx(found[far])


def test_late_tokens_differ_more_where_the_difference_grows() -> None:
    found = by_position(patient_of(change=each(late)).scored)
    assert found["late"] > 4 * found["early"]


def test_nothing_is_zero() -> None:
    assert worst_of(torch.zeros(0)) == mean_of(torch.zeros(0)) == 0.0
