"""Every registered loss, advantage and correction keeps the contract of its kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlkit.registry import build, names
from rlkit.testing import CHECKS
from rlkit.testing.base import EVERY


def every_check(*kinds: str) -> list[Any]:
    """(kind, name, check) of every registered part of these kinds."""
    return [
        pytest.param(kind, name, check, id=f"{kind}-{name}-{check.__name__}")
        for kind in kinds
        for name in names(kind)
        for check in (*EVERY, *CHECKS[kind])
    ]


@pytest.mark.parametrize(("kind", "name", "check"), every_check("loss", "advantage", "correction"))
def test_contract(kind: str, name: str, check: Any) -> None:
    check(build(kind, name))


@pytest.mark.parametrize("name", names("loss"))
def test_settings_other_than_the_defaults_keep_the_contract(name: str) -> None:
    for aggregation in ("seq-mean-token-sum-norm", "token-sum"):
        loss = build("loss", name, aggregation=aggregation, count_empty_rows=True)
        for check in CHECKS["loss"]:
            check(loss)


@pytest.mark.parametrize(
    "kind", ["loss", "advantage", "correction", "buffer", "anchor", "schedule"]
)
def test_defaults_are_plain_values_of_a_config_file(kind: str) -> None:
    for name in names(kind):
        config = build(kind, name).config
        assert json.loads(json.dumps(config.model_dump())).keys() == config.model_dump().keys()
