"""Soft and hard updates of the base, when they come, and the periodic reset."""

from __future__ import annotations

from typing import Any

from anchors.tr_dpo import TrDpo, TrDpoConfig
from rlkit.registry import build
from rlkit.testing.base import stored
from tests.anchors.running import Run, resumed


def tr_dpo(**fields: Any) -> TrDpo:
    return TrDpo(TrDpoConfig(**fields))


def test_the_defaults_are_trls() -> None:
    assert (TrDpoConfig().alpha, TrDpoConfig().every) == (0.6, 512)


def test_a_soft_update_goes_a_part_of_the_way() -> None:
    """After steps 2 and 4: 0.75 * 2 = 1.5; 0.25 * 1.5 + 0.75 * 4 = 3.375."""
    assert Run(tr_dpo(alpha=0.75, every=2)).one(5) == [0, 0, 1.5, 1.5, 3.375]


def test_a_hard_update_makes_the_policy_the_base() -> None:
    assert Run(tr_dpo(alpha=1.0, every=2)).one(5) == [0, 0, 2, 2, 4]


def test_a_copy_is_made_only_where_the_base_moves() -> None:
    run = Run(tr_dpo(every=3))
    run.steps(7)
    assert run.policy.copies == 3, "the rebase and two updates"


def test_the_base_moves_also_without_a_penalty() -> None:
    """TR-DPO as printed: the loss reads the base, and the anchor adds nothing."""
    run = Run(tr_dpo(alpha=1.0, every=1, beta=0.0))
    assert run.steps(3) == [{}, {}, {}]
    state = stored(run.anchor.state_dict())
    assert float(state["frozen"]["base"]["number"]) == 3


def test_a_rebirth_makes_the_policy_the_base_and_counts_from_there() -> None:
    run = Run(tr_dpo(alpha=0.5, every=2))
    run.steps(3)
    run.rebirth()
    assert run.one(3) == [3, 3, 4]


def test_a_restored_base_moves_at_the_same_steps() -> None:
    run = Run(tr_dpo(alpha=0.5, every=3))
    run.steps(4)
    assert resumed(run).one(6) == run.one(6)


def test_periodic_makes_the_policy_the_base_every_so_many_steps() -> None:
    assert Run(build("anchor", "periodic", every=3)).one(7) == [0, 0, 0, 3, 3, 3, 6]


def test_periodic_is_the_hard_update() -> None:
    hard = TrDpo(TrDpoConfig(alpha=1.0, every=2))
    assert Run(build("anchor", "periodic", every=2)).one(7) == Run(hard).one(7)
    assert (
        build("anchor", "periodic").config.model_dump()
        == TrDpoConfig(alpha=1.0, every=100).model_dump()
    )


def test_periodic_counts_from_a_rebirth() -> None:
    run = Run(build("anchor", "periodic", every=3))
    run.steps(2)
    run.rebirth()
    assert run.one(4) == [2, 2, 2, 5]


def test_a_restored_periodic_reset_comes_at_the_same_step() -> None:
    run = Run(build("anchor", "periodic", every=3))
    run.steps(2)
    assert resumed(run).one(3) == run.one(3) == [0, 3, 3]
