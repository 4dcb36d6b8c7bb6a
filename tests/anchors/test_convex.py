"""The convex combination: its shares, its edges, and what each reference holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anchors.base import BaseAnchor
from anchors.convex import Convex, ConvexConfig
from anchors.ema import Ema, EmaConfig
from anchors.kl_convex import KLConvex, KLConvexConfig
from anchors.previous import Previous
from rlkit.errors import UserError
from rlkit.interfaces import AnchorPolicy, RunContext
from rlkit.ops import kl_value
from rlkit.registry import build
from rlkit.testing.losses import examples
from tests.anchors.running import Run, resumed


def convex(**fields: Any) -> Convex:
    return Convex(ConvexConfig(**fields))


def equal(a: AnchorPolicy[Any], b: AnchorPolicy[Any], name: str) -> None:
    """The same references over some steps, and the same penalty and gradient bit for bit."""
    first, second = Run(a), Run(b)
    assert first.steps(4) == second.steps(4)
    first.rebirth()
    second.rebirth()
    assert first.steps(3) == second.steps(3)
    logp, batch = examples([f"anchor:{name}"])
    leaves = [logp.clone().requires_grad_() for _ in range(2)]
    one, other = (anchor.penalty(x, batch, 8) for anchor, x in zip((a, b), leaves, strict=True))
    assert torch.equal(one, other)
    assert torch.equal(
        *(torch.autograd.grad(v.sum(), x)[0] for v, x in ((one, leaves[0]), (other, leaves[1])))
    )


def test_all_on_the_base_is_the_base_anchor() -> None:
    equal(convex(base=1, previous=0), BaseAnchor(), "base")


def test_all_on_the_previous_is_the_previous_anchor() -> None:
    equal(convex(base=0, previous=1), Previous(), "previous")


def test_all_on_the_average_is_the_ema_anchor() -> None:
    alone, ema = convex(base=0, previous=0, ema=1, decay=0.9), Ema(EmaConfig(decay=0.9))
    assert Run(alone).one(6, "ema") == Run(ema).one(6)


def test_the_shares_are_proportions() -> None:
    assert convex(base=3, previous=1).weights(1) == {"base": 0.75, "previous": 0.25}
    assert convex(base=1, previous=1, ema=2).weights(1) == {
        "base": 0.25,
        "previous": 0.25,
        "ema": 0.5,
    }


def test_a_reference_without_weight_is_not_asked_for_and_the_base_stands() -> None:
    """The base stays offered to a loss that reads it."""
    anchor = convex(base=0, previous=1)
    assert anchor.references(1) == ("previous",) and set(anchor.weights(1)) == {"base", "previous"}
    run = Run(anchor)
    run.steps(2)
    assert anchor.frozen.keys() == {"base", "previous"}
    assert convex(beta=0.0).references(1) == ()


def test_what_each_reference_holds() -> None:
    found = Run(convex(ema=1, decay=0.5)).steps(4)
    assert [f["base"] for f in found] == [0, 0, 0, 0]
    assert [f["previous"] for f in found] == [None, 0, 1, 2]
    assert [f["ema"] for f in found] == [0, 0.5, 1.25, 2.125]


def test_constant_shares_are_those_of_kl_convex_from_its_second_step() -> None:
    half = Run(KLConvex(KLConvexConfig(start=0, interval=1, decrement=0.5, floor=0.5))).steps(5)
    found = Run(convex()).steps(5)
    assert [(f["base"], f["previous"]) for f in found][1:] == [
        (f["base"], f["previous"]) for f in half
    ][1:]


def test_the_penalty_is_the_weighted_sum_of_two_kls() -> None:
    logp, batch = examples(["anchor:base", "anchor:previous"])
    anchor = convex(base=3, previous=1, beta=0.2)
    base, previous = (
        kl_value(logp, batch.anchor_logp[n], batch.mask, "k3") for n in ("base", "previous")
    )
    torch.testing.assert_close(
        anchor.penalty(logp, batch, 1), 0.2 * (0.75 * base + 0.25 * previous)
    )


def test_copies_are_made_only_for_references_with_a_weight() -> None:
    alone = Run(convex(previous=0))
    alone.steps(4)
    assert alone.policy.copies == 1
    two = Run(convex())
    two.steps(4)
    assert two.policy.copies == 5
    unread = convex(beta=0.0)
    unread.open(RunContext(read_by_loss=frozenset({"base"})))
    run = Run(unread)
    run.steps(4)
    assert run.policy.copies == 1


def test_a_reference_that_loses_its_weight_is_dropped() -> None:
    anchor = convex(ema=1)
    run = Run(anchor, torch.bfloat16)
    run.steps(2)
    assert anchor.means.keys() == {"ema"}
    anchor.config = ConvexConfig(previous=0)
    run.step()
    assert anchor.frozen.keys() == {"base"} and anchor.means == {}


def test_a_rebirth_moves_the_base_and_the_average_and_keeps_the_previous() -> None:
    run = Run(convex(ema=1, decay=0.5))
    run.steps(3)
    run.rebirth()
    assert run.steps(2) == [
        {"base": 3, "previous": 2, "ema": 3},
        {"base": 3, "previous": 3, "ema": 3.5},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_anchor_holds_the_same_policies(dtype: torch.dtype) -> None:
    run = Run(convex(ema=1, decay=0.9), dtype)
    run.steps(4)
    assert resumed(run).steps(9) == run.steps(9)


def test_no_weight_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="give one of them a weight"):
        build("anchor", "convex", base=0, previous=0)
