"""AsymRE by hand."""

from __future__ import annotations

import pytest

from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.one_group import BEHAVIOR, TWO, responses


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("asymre", {}, (1 * 2 - 1 * 3) / 2),
    ],
)
def test_values_of_two_responses_that_compare_a_reward_with_a_log_ratio(
    name: str, fields: dict[str, float], value: float
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = responses(TWO, [1.0, -1.0], to=loss.needs or BEHAVIOR)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)
