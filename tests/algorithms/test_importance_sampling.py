"""The unclipped surrogate by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.registry import build
from tests.algorithms.tokens import DIP, HOP, LOG_RATIO, RATIO, pushes, tokens, total


def test_importance_sampling_is_the_ratio_without_a_clip() -> None:
    logp, batch = tokens(LOG_RATIO, -2.0)
    assert pushes("importance_sampling", logp, batch).tolist() == pytest.approx(
        [-2 * r for r in RATIO]
    )
    assert total("importance_sampling", logp, batch) == pytest.approx(2 * sum(RATIO))
    clamped = pushes("importance_sampling", logp, batch, log_ratio_clamp=0.5)
    assert clamped.tolist() == pytest.approx([0, -2 * DIP, -2, -2 * HOP, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("importance_sampling", {"aggregation": "token-mean"}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()
