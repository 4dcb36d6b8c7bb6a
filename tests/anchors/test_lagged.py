"""The lagging base in its two forms."""

from __future__ import annotations

from typing import Any

import pytest

from anchors.lagged import Lagged, LaggedConfig
from anchors.previous import Previous
from rlkit.registry import build
from tests.anchors.running import Run, resumed


def lagged(**fields: Any) -> Lagged:
    return Lagged(LaggedConfig(**fields))


def test_the_refreshed_base_is_the_policy_of_every_lag_th_step() -> None:
    assert Run(lagged(lag=3)).one(7) == [0, 0, 0, 3, 3, 3, 6]
    assert Run(lagged(lag=1)).one(3) == [0, 1, 2]
    assert Run(lagged(lag=3)).one(9) == Run(build("anchor", "periodic", every=3)).one(9)


def test_the_default_is_oapls() -> None:
    assert (LaggedConfig().lag, LaggedConfig().form) == (50, "refreshed")


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_the_constant_base_is_so_many_steps_old(lag: int) -> None:
    """Step k starts from pi_k, which holds k - 1; pi_{k - lag} holds k - 1 - lag, at least 0."""
    found = Run(lagged(lag=lag, form="constant")).one(7)
    assert found == [max(k - lag, 0) for k in range(7)]


def test_a_constant_lag_of_one_is_the_previous_policy() -> None:
    """In the first step the one holds a copy of pi_1 and the other names pi_1 itself."""
    found = Run(lagged(lag=1, form="constant")).one(6)
    assert found[1:] == Run(Previous()).one(6, "previous")[1:]


@pytest.mark.parametrize("lag", [1, 3])
def test_a_constant_lag_holds_so_many_copies(lag: int) -> None:
    anchor = lagged(lag=lag, form="constant")
    run = Run(anchor)
    for _ in range(6):
        run.step()
        assert len(anchor.frozen) + len(anchor.later) <= lag
    assert run.policy.copies == 6, "one a step; the rebase's is that of the first"


def test_a_refreshed_base_is_one_copy() -> None:
    anchor = lagged(lag=2)
    run = Run(anchor)
    run.steps(5)
    assert run.policy.copies == 3 and anchor.later == []


@pytest.mark.parametrize(("form", "after"), [("refreshed", [5, 5, 7]), ("constant", [5, 5, 5])])
def test_a_rebirth_makes_the_policy_the_base(form: str, after: list[float]) -> None:
    run = Run(lagged(lag=2, form=form))
    run.steps(5)
    run.rebirth()
    assert run.one(3) == after


@pytest.mark.parametrize("form", ["refreshed", "constant"])
def test_a_restored_base_lags_the_same(form: str) -> None:
    run = Run(lagged(lag=3, form=form))
    run.steps(5)
    assert resumed(run).one(6) == run.one(6)
