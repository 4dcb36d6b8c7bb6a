"""CHORD by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.interfaces import Correction
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import double, near, old_and_new, outcome, rows, terms_of


def test_chord_averages_each_part_over_its_own_tokens() -> None:
    """Two own tokens at ratios 1.1 and 1.5, one demonstration at p = 1/4: phi = 3/16."""
    logp, batch = rows(double([[1.1], [1.5], [1.0]]).log(), 1.0)
    logp[2] = math.log(0.25)
    batch = replace(batch, expert=torch.tensor([False, False, True]))
    batch.prox_logp[2] = torch.nan
    for fields, expected in (
        ({}, [-0.9 * 1.1 / 2, 0, -0.1 * 0.1875]),
        ({"mu": 0.4}, [-0.6 * 1.1 / 2, 0, -0.4 * 0.1875]),
        ({"weighting": "none"}, [-0.9 * 1.1 / 2, 0, -0.1]),
        ({"weighting": "probability"}, [-0.9 * 1.1 / 2, 0, -0.1 * 0.25]),
        ({"clip_high": 0.6}, [-0.9 * 1.1 / 2, -0.9 * 1.5 / 2, -0.1 * 0.1875]),
        ({"mu": 0.0}, [-1.1 / 2, 0, 0]),
        ({"mu": 1.0}, [0, 0, -0.1875]),
    ):
        gradient, metrics = outcome("chord", logp, batch, **fields)
        assert gradient == near([[g] for g in expected])
        assert metrics["clip_fraction"] == (0 if "clip_high" in fields else pytest.approx(1 / 3))


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0}, {"delta": 2.0}, {"clip_low": 0.9}])
def test_chord_without_demonstrations_is_ppo_times_its_share(fields: dict[str, Any]) -> None:
    logp, batch = rows(double([[0.5, 1.0, 3.0]]).log(), [[-1.0, -1.0, -2.0]])
    found = value_and_grad(build("loss", "chord", mu=0.25, **fields), logp, batch)
    expected = value_and_grad(build("loss", "ppo", **fields), logp, batch)
    assert close([0.75 * x for x in expected], found)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("chord", {"mu": 1.1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)


PHI = math.exp(-1) * (1 - math.exp(-1))


@pytest.mark.parametrize(("name", "own", "taught"), [("chord", 0.9, 0.1 * PHI), ("hpt", 1, 1)])
def test_empty_responses_that_count_do_so_in_their_own_part(
    name: str, own: float, taught: float
) -> None:
    """Two own responses and one demonstration; one of the own ones is empty."""
    logp, batch = rows(double([[1.1], [1.0], [1.0]]).log(), 1.0)
    expert = torch.tensor([False, False, True])
    batch = replace(batch, expert=expert, mask=torch.tensor([[True], [False], [True]]))
    for counted, responses in ((False, 1), (True, 2)):
        fields = {"aggregation": "seq-mean-token-mean", "count_empty_rows": counted}
        gradient, _ = outcome(name, logp, batch, **fields)
        assert gradient == near([[-1.1 * own / responses], [0], [-taught]])


class Halve(Correction):
    """Weight one half on every token, an expert's too."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        return Corrected(batch=batch, weight=torch.full_like(batch.behavior_logp, 0.5))


def test_a_correction_does_not_weigh_chords_demonstrations() -> None:
    logp, batch = old_and_new()
    batch = replace(batch, expert=torch.tensor([False, True, False]))
    loss = build("loss", "chord")
    plain, halved = (terms_of(loss, logp, batch, c) for c in (None, Halve()))
    assert list(plain) == ["policy", "expert"]
    assert torch.equal(halved["policy"].value, 0.5 * plain["policy"].value)
    assert torch.equal(halved["expert"].value, plain["expert"].value)
    assert plain["expert"].value[1].all()
