"""The base: what it holds, how often it was set, and what a checkpoint keeps of it."""

from __future__ import annotations

from typing import Any

import pytest

from anchors.base import BaseAnchor
from rlkit.errors import UserError
from rlkit.interfaces import AnchorConfig, RunContext
from rlkit.registry import build, names
from rlkit.testing.anchors import FakePolicy, life
from tests.anchors.running import Run, resumed


def test_the_base_stands_until_a_rebirth_makes_the_policy_the_base() -> None:
    run = Run(BaseAnchor())
    assert run.one(3) == [0, 0, 0]
    run.rebirth()
    assert run.one(3) == [3, 3, 3] and run.policy.copies == 2


def test_each_base_has_a_number_and_other_references_have_none() -> None:
    """What was computed under a base is known by its number."""
    run = Run(BaseAnchor())
    assert (run.anchor.number("base"), run.anchor.number("previous")) == (1, None)
    run.rebirth()
    assert resumed(run).anchor.number("base") == run.anchor.number("base") == 2


def test_a_restored_base_is_the_same_policy() -> None:
    run = Run(BaseAnchor())
    run.steps(2)
    run.rebirth()
    run.steps(1)
    assert resumed(run).one(2) == run.one(2) == [2, 2]


@pytest.mark.parametrize(
    ("beta", "read", "expected"),
    [
        (0.1, frozenset(), True),
        (0.0, None, True),
        (0.0, frozenset({"base"}), True),
        (0.0, frozenset({"previous"}), False),
    ],
)
def test_a_copy_is_worth_making_if_the_penalty_or_the_loss_reads_it(
    beta: float, read: frozenset[str] | None, expected: bool
) -> None:
    """Before a run has said what its loss reads, it may read anything."""
    anchor = BaseAnchor(AnchorConfig(beta=beta))
    anchor.open(RunContext(read_by_loss=read))
    assert anchor.is_read("base") == expected


@pytest.mark.parametrize("read", [frozenset({"base"}), frozenset(), None])
def test_a_base_that_nothing_reads_is_not_copied(read: frozenset[str] | None) -> None:
    anchor = BaseAnchor(AnchorConfig(beta=0))
    anchor.open(RunContext(read_by_loss=read))
    run = Run(anchor)
    run.steps(2)
    run.rebirth()
    held = set() if read == frozenset() else {"base"}
    assert anchor.frozen.keys() == held and anchor.number("base") == 2
    assert run.policy.copies == 2 * len(held)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("name", names("anchor"))
def test_what_is_read_is_there_whatever_else_is_not(name: str, beta: float) -> None:
    """Each reference alone, as a loss reads it, and those that the penalty reads."""
    known: dict[str, Any] = {"convex": {"ema": 1.0}, "kl_convex": {"start": 0, "interval": 1}}
    others = known.get(name, {})
    for read in (
        frozenset({each}) for each in ["none", *build("anchor", name, **others).weights(1)]
    ):
        anchor = build("anchor", name, beta=beta, **others)
        if name == "teacher":  # which opens a model
            anchor.context = RunContext(read_by_loss=read)
        else:
            anchor.open(RunContext(read_by_loss=read))
        for step in life(anchor, FakePolicy()):
            for each in {*anchor.references(step), *(read - {"none"})}:
                anchor.reference(each)


def test_a_base_that_was_not_kept_cannot_be_read_later() -> None:
    anchor = BaseAnchor(AnchorConfig(beta=0))
    anchor.open(RunContext(read_by_loss=frozenset()))
    run = Run(anchor)
    anchor.restore(run.policy, anchor.state_dict())
    later = BaseAnchor(AnchorConfig(beta=0.1))
    with pytest.raises(UserError, match="kept no copy of its base"):
        later.restore(run.policy, anchor.state_dict())
