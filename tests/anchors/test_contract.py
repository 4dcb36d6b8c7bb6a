"""Every registered anchor keeps the contract of its kind."""

from __future__ import annotations

import pytest

from rlkit.registry import build, names
from rlkit.testing import check_anchor


@pytest.mark.parametrize("name", names("anchor"))
def test_contract(name: str) -> None:
    check_anchor(build("anchor", name))


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_at": "this_step", "start": 0},
        {"start": 0, "interval": 1, "decrement": 1.0, "floor": 0.0},
        {"beta": 0.0},
        {"placement": "reward"},
        {"importance_weight": True, "gradient_estimator": "k3"},
    ],
)
def test_other_settings_of_kl_convex_keep_the_contract(fields: dict[str, object]) -> None:
    check_anchor(build("anchor", "kl_convex", **fields))
