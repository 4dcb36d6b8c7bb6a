"""The periodic reset."""

from __future__ import annotations

from anchors.tr_dpo import TrDpo, TrDpoConfig
from rlkit.registry import build
from tests.anchors.running import Run, resumed


def test_the_policy_becomes_the_base_every_so_many_steps() -> None:
    assert Run(build("anchor", "periodic", every=3)).one(7) == [0, 0, 0, 3, 3, 3, 6]


def test_it_is_tr_dpos_hard_update() -> None:
    hard = TrDpo(TrDpoConfig(alpha=1.0, every=2))
    assert Run(build("anchor", "periodic", every=2)).one(7) == Run(hard).one(7)
    assert (
        build("anchor", "periodic").config.model_dump()
        == TrDpoConfig(alpha=1.0, every=100).model_dump()
    )


def test_a_rebirth_counts_from_there() -> None:
    run = Run(build("anchor", "periodic", every=3))
    run.steps(2)
    run.rebirth()
    assert run.one(4) == [2, 2, 2, 5]


def test_a_restored_reset_comes_at_the_same_step() -> None:
    run = Run(build("anchor", "periodic", every=3))
    run.steps(2)
    assert resumed(run).one(3) == run.one(3) == [0, 3, 3]
