"""The previous policy: which weights it holds, and when a copy is made."""

from __future__ import annotations

from typing import Any

import pytest

from anchors.previous import Previous, PreviousConfig
from rlkit.interfaces import RunContext
from tests.anchors.running import Run, resumed


def previous(**fields: Any) -> Previous:
    return Previous(PreviousConfig(**fields))


def test_it_is_the_policy_one_step_before_the_steps_start() -> None:
    """Step k starts from pi_k, which holds k - 1; in step 1 there is none before it but pi_1."""
    assert Run(previous()).one(5, "previous") == [None, 0, 1, 2, 3]


def test_one_copy_a_step_and_none_at_the_rebase() -> None:
    run = Run(previous())
    assert run.policy.copies == 0
    run.steps(3)
    assert run.policy.copies == 3 and run.anchor.state_dict()["frozen"].keys() == {"previous"}


def test_the_step_start_reading_needs_no_copy() -> None:
    run = Run(previous(previous_at="this_step"))
    assert run.one(3, "previous") == [None, None, None] and run.policy.copies == 0


@pytest.mark.parametrize(
    ("read", "copies"), [(None, 3), (frozenset({"previous"}), 3), (frozenset({"base"}), 0)]
)
def test_without_a_penalty_a_copy_is_made_only_where_a_loss_may_read_it(
    read: frozenset[str] | None, copies: int
) -> None:
    anchor = previous(beta=0.0)
    anchor.open(RunContext(read_by_loss=read))
    run = Run(anchor)
    assert run.steps(3) == [{}, {}, {}] and run.policy.copies == copies


def test_a_penalty_keeps_the_copy_whatever_the_loss_reads() -> None:
    anchor = previous()
    anchor.open(RunContext(read_by_loss=frozenset()))
    assert Run(anchor).one(3, "previous") == [None, 0, 1]


def test_a_copy_that_nothing_reads_is_dropped() -> None:
    """No old policy is left behind to be met when beta rises again."""
    anchor = previous()
    anchor.open(RunContext(read_by_loss=frozenset()))
    run = Run(anchor)
    run.steps(2)
    anchor.config = PreviousConfig(beta=0.0)
    run.step()
    anchor.config = PreviousConfig()
    assert run.one(2, "previous") == [None, 3]


def test_a_rebirth_changes_nothing() -> None:
    run = Run(previous())
    run.steps(3)
    run.rebirth()
    assert run.one(2, "previous") == [2, 3]


def test_a_restored_anchor_holds_the_same_policy() -> None:
    run = Run(previous())
    run.steps(3)
    assert resumed(run).one(3, "previous") == run.one(3, "previous") == [2, 3, 4]


def test_there_is_no_other_reference() -> None:
    with pytest.raises(KeyError):
        previous().reference("base")
