"""sPPO's window by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.registry import build
from tests.algorithms.tokens import metric, pushes, tokens, total


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_sppo_has_a_window_symmetric_in_the_log_ratio(advantage: float) -> None:
    """log 1.3 = 0.262: both signs of A stop beyond it on either side, unlike PPO."""
    inside, outside = [-0.262, -0.1, 0.0, 0.262], [-0.263, 0.263, 1.0, -1.0]
    logp, batch = tokens(inside + outside, advantage)
    assert pushes("sppo", logp, batch).tolist() == [advantage] * 4 + [0.0] * 4
    assert total("sppo", logp, batch) == pytest.approx(-advantage * sum(inside))
    assert metric("sppo", logp, batch, "clip_fraction") == 0.5
    assert pushes("sppo", logp, batch, epsilon=0.302).count_nonzero() == 6
    assert pushes("sppo", logp, batch, log_ratio_clamp=0.2).count_nonzero() == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sppo", {"epsilon": 0.3}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()
