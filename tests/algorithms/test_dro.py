"""DRO by hand."""

from __future__ import annotations

import pytest

from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.one_group import BEHAVIOR, TWO, responses


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("dro", {"beta": 0.2}, (2 - 3 + 0.1 * 4) / 5),
        ("dro", {"beta": 0.2, "log_ratio_clamp": 0.5}, (2 - 3 + 0.1 * 1.25) / 5),
    ],
)
def test_values_of_two_responses_that_compare_a_reward_with_a_log_ratio(
    name: str, fields: dict[str, float], value: float
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = responses(TWO, [1.0, -1.0], to=loss.needs or BEHAVIOR)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)
