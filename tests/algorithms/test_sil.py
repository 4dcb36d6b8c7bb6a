"""Self-imitation by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.registry import build
from tests.algorithms.rows import double, near, outcome, rows


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, (3, 0, 3)),
        ({"max_advantage": 1.0}, (1, 0, 1)),
        ({"is_clip": 10.0}, (1.5, 0, 3)),
        ({"is_clip": 0.25}, (0.75, 0, 3)),
        ({"is_clip": 10.0, "log_ratio_clamp": 0.1}, (3 * math.exp(-0.1), 0, 3)),
    ],
)
def test_sil_imitates_what_did_better_than_expected(
    fields: dict[str, Any], weights: tuple[float, float, float]
) -> None:
    """Ratios 1/2, 4 and a demonstration, whose ratio is unknown and whose weight stays."""
    logp, batch = rows(double([[0.5], [4.0], [1.0]]).log(), [[3.0], [-2.0], [3.0]])
    batch = replace(batch, expert=torch.tensor([False, False, True]))
    batch.behavior_logp[2] = torch.nan
    gradient, metrics = outcome("sil", logp, batch, **fields)
    assert gradient == near([[-w / 3] for w in weights])
    assert metrics["positive_fraction"] == pytest.approx(2 / 3)
    assert build("loss", "sil", **fields).needs == ({"behavior"} if "is_clip" in fields else set())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("sil", {"is_clip": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
