"""GMPO by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.two_rows import pushes, two_rows, value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gmpo", {"aggregation": "seq-mean-token-mean", "clip_low": 0.4, "clip_high": 0.4}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()


@pytest.mark.parametrize(
    ("advantage", "fields", "logs", "kept"),
    [
        ([2.0, 3.0], {}, (0.1, -0.2), ([0, 1], [1, 1, 1])),
        ([2.0, -3.0], {"clip_high": 0.6}, (0.15, -0.2), ([1, 1], [1, 1, 1])),
        ([-2.0, -3.0], {}, (0.15, -0.2), ([1, 1], [1, 1, 1])),
        ([-2.0, -3.0], {"clip_low": 0.15}, (0.175, -0.4 / 3), ([1, 0], [1, 0, 0])),
        ([-2.0, 3.0], {"clip_low": 0.1, "clip_high": 0.1}, (0.2, -0.2), ([1, 0], [1, 1, 1])),
        ([-2.0, 3.0], {"log_ratio_clamp": 0.25}, (0.025, -0.55 / 3), ([0, 1], [1, 1, 0])),
    ],
)
def test_gmpo_clips_log_ratios_before_their_mean(
    advantage: list[float],
    fields: dict[str, float],
    logs: tuple[float, float],
    kept: tuple[list[int], list[int]],
) -> None:
    """Log-ratios 0.5, -0.2 and -0.1, -0.2, -0.3: upper clip where A > 0, lower where A < 0."""
    a, b = (x * math.exp(y) for x, y in zip(advantage, logs, strict=True))
    found = pushes("gmpo", advantage, **fields)
    assert found[0, :2].tolist() == pytest.approx([a / 2 * k for k in kept[0]])
    assert found[1].tolist() == pytest.approx([b / 3 * k for k in kept[1]])
    assert value("gmpo", advantage, **fields) == pytest.approx(-(a + b) / 2)
    if "log_ratio_clamp" not in fields:
        logp, batch = two_rows(advantage)
        share = loss_value(build("loss", "gmpo", **fields), logp, batch)[1]["clip_fraction"]
        assert share == pytest.approx(1 - sum(map(sum, kept)) / 5)


def test_gmpo_takes_each_tokens_sign_and_the_mean_advantage() -> None:
    """Row 1: signs + and -, mean 0.5, 0.5 cut to 0.4. Row 2: a zero advantage drops its token."""
    advantage = [[2.0, -1.0, 0.0], [3.0, 0.0, 3.0]]
    found = pushes("gmpo", advantage)
    first, second = 0.5 * math.exp(0.1), 2 * math.exp(-0.4 / 3)
    assert found[0, :2].tolist() == pytest.approx([0, first / 2])
    assert found[1].tolist() == pytest.approx([second / 3, 0, second / 3])
    logp, batch = two_rows(advantage)
    metrics = loss_value(build("loss", "gmpo"), logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(1 / 5)
