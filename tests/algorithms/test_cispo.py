"""CISPO by hand: the clip of the weight, in both conventions."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.registry import build
from tests.algorithms.tokens import (
    DIP,
    HOP,
    LOG_RATIO,
    LOGP,
    LOW,
    RATIO,
    metric,
    pushes,
    tokens,
    total,
)


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        ({}, [LOW, DIP, 1, HOP, 1.28], [LOW, DIP, 1, HOP, 1.28]),
        ({"clip_low": 0.2}, [0.8, DIP, 1, HOP, 1.28], [0.8, DIP, 1, HOP, 1.28]),
        ({"clip_low": 2.0, "clip_high": 9.0}, RATIO, RATIO),
        ({"clip_high": 0.05}, [LOW, DIP, 1, 1.05, 1.05], [LOW, DIP, 1, 1.05, 1.05]),
        (
            {"convention": "absolute_cap", "clip_high": 1.5},
            [LOW, DIP, 1, HOP, 1.5],
            [LOW, DIP, 1, HOP, 1.5],
        ),
        ({"ppo_sign_mask": True}, [LOW, DIP, 1, HOP, 0], [0, DIP, 1, HOP, 1.28]),
        (
            {"ppo_sign_mask": True, "mask_clip_low": 0.05, "mask_clip_high": 0.08},
            [LOW, DIP, 1, 0, 0],
            [0, 0, 1, HOP, 1.28],
        ),
    ],
)
def test_cispo_clips_the_weight_and_keeps_the_gradient(
    fields: dict[str, Any], good: list[float], bad: list[float]
) -> None:
    """w A with a detached w, so that the loss is -w A log pi; only the PPO mask drops a token."""
    for advantage, weight in ((1.0, good), (-1.0, bad)):
        logp, batch = tokens(LOG_RATIO, advantage)
        assert pushes("cispo", logp, batch, **fields).tolist() == pytest.approx(
            [advantage * w for w in weight]
        )
        assert total("cispo", logp, batch, **fields) == pytest.approx(
            -LOGP * advantage * sum(weight)
        )
        share = sum(abs(w - r) > 1e-9 for w, r in zip(weight, RATIO, strict=True)) / 5
        assert metric("cispo", logp, batch, "clip_fraction", **fields) == pytest.approx(share)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cispo", {"aggregation": "token-mean", "convention": "one_plus_eps", "clip_low": None}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()
