"""KL-Convex and the base anchor: weights by hand, and which weights each reference holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from anchors.base import BaseAnchor
from anchors.kl_convex import KLConvex, KLConvexConfig
from rlkit.interfaces import RunContext
from rlkit.ops import kl_value
from rlkit.registry import build
from rlkit.testing.anchors import FakePolicy
from rlkit.testing.base import stored
from rlkit.testing.losses import examples


def kl_convex(**fields: Any) -> KLConvex:
    return KLConvex(KLConvexConfig(**fields))


class Run:
    """The calls of the training loop; pi_k, where step k starts, holds the number k - 1."""

    def __init__(self, anchor: Any) -> None:
        self.anchor, self.policy = anchor, FakePolicy(0)
        anchor.rebase(self.policy)

    def step(self, step: int) -> dict[str, float]:
        """The number each reference holds while the step's log-probs are taken."""
        found = {n: self.held(n) for n in self.anchor.references(step)}
        self.anchor.before_step(self.policy, step)
        self.policy.number.fill_(step)
        self.anchor.after_step(self.policy, step, {})
        return found

    def held(self, name: str) -> float:
        return float(self.anchor.reference(name).state_dict()["number"])


def test_the_papers_weights_by_hand() -> None:
    expected = {1: 1.0, 50: 1.0, 51: 0.9, 60: 0.9, 61: 0.8, 71: 0.7, 81: 0.6, 91: 0.5, 500: 0.5}
    anchor = kl_convex()
    assert {step: anchor.weights(step)["base"] for step in expected} == expected
    assert kl_convex(decrement=0.35, floor=0.0).weights(61)["base"] == 0.3, (
        "not 0.30000000000000004"
    )
    rest = {1: 0.0, 51: 0.1, 61: 0.2, 71: 0.3, 81: 0.4, 91: 0.5}
    assert {step: anchor.weights(step)["previous"] for step in rest} == rest


def test_a_reference_without_weight_is_not_asked_for() -> None:
    assert kl_convex().references(50) == ("base",)
    assert kl_convex().references(51) == ("base", "previous")
    alone = kl_convex(start=0, interval=1, decrement=0.5, floor=0.0)
    assert [alone.references(s) for s in (1, 2)] == [("base", "previous"), ("previous",)]
    assert kl_convex(beta=0.0).references(60) == ()


def test_the_previous_policy_is_that_one_step_before_the_steps_start() -> None:
    """Step k starts from pi_k, which holds k - 1; its previous one, pi_{k-1} holds k - 2; in step
    1, the base.
    """
    run = Run(kl_convex(start=0, interval=1))
    assert run.step(1) == {"base": 0, "previous": 0}
    assert run.step(2) == {"base": 0, "previous": 0}
    assert run.step(3) == {"base": 0, "previous": 1}
    assert run.step(4) == {"base": 0, "previous": 2}


def test_a_copy_is_made_only_for_a_step_that_is_held_to_it() -> None:
    run = Run(kl_convex(start=3, interval=1))
    for step, held in ((1, {"base"}), (2, {"base"}), (3, {"base", "previous"})):
        run.step(step)
        assert run.anchor.frozen.keys() == held
    assert run.step(4) == {"base": 0, "previous": 2}


def test_a_copy_that_loses_its_weight_is_dropped() -> None:
    """A schedule that takes the weight away leaves no old policy behind to be met later."""
    run = Run(kl_convex(start=0, interval=1))
    run.step(1)
    run.anchor.config = KLConvexConfig(decrement=0.0)
    run.step(2)
    assert run.anchor.frozen.keys() == {"base"}


def test_a_rebirth_moves_the_base_and_keeps_the_previous() -> None:
    run = Run(kl_convex(start=0, interval=1))
    for step in (1, 2, 3):
        run.step(step)
    run.anchor.rebase(run.policy)
    assert run.step(4) == {"base": 3, "previous": 2}
    assert run.step(5) == {"base": 3, "previous": 3}


def test_the_step_start_reading_needs_no_copy() -> None:
    run = Run(kl_convex(start=0, interval=1, previous_at="this_step"))
    assert run.anchor.reference("previous") is None
    run.anchor.before_step(run.policy, 1)
    assert run.anchor.frozen.keys() == {"base"}


def test_a_restored_anchor_holds_the_same_policies() -> None:
    run = Run(kl_convex(start=0, interval=1))
    for step in (1, 2, 3):
        run.step(step)
    again = Run(kl_convex(start=0, interval=1))
    again.policy.number.fill_(3)
    again.anchor.restore(again.policy, stored(run.anchor.state_dict()))
    for step in (4, 5):
        assert again.step(step) == run.step(step)


def test_the_base_anchor_holds_the_policy_of_the_last_rebase() -> None:
    run = Run(BaseAnchor())
    assert [run.step(s) for s in (1, 2)] == [{"base": 0}, {"base": 0}]
    run.anchor.rebase(run.policy)
    assert run.step(3) == {"base": 2}


def test_no_anchor_has_no_references_and_keeps_nothing() -> None:
    run = Run(build("anchor", "none", beta=1.0))
    assert run.step(1) == {} and run.anchor.state_dict() == {}


def test_the_penalty_is_beta_times_the_convex_combination() -> None:
    """At step 75: 0.7 to the base and 0.3 to the previous, neither KL that of a mixture."""
    logp, batch = examples(["anchor:base", "anchor:previous"])
    anchor = kl_convex(beta=0.2, value_estimator="k3", gradient_estimator="k3")
    base, previous = (
        kl_value(logp, batch.anchor_logp[n], batch.mask, "k3") for n in ("base", "previous")
    )
    expected = 0.2 * (0.7 * base + 0.3 * previous)
    torch.testing.assert_close(anchor.penalty(logp, batch, 75), expected)
    torch.testing.assert_close(anchor.metrics(logp, batch, 75)["kl"], expected / 0.2)


def test_value_and_gradient_estimators_are_chosen_apart() -> None:
    """The default: the value of k3, the gradient of k2, which is beta times the log-ratio."""
    logp, batch = examples(["anchor:base"])
    leaf = logp.clone().requires_grad_()
    value = BaseAnchor().penalty(leaf, batch, 1)
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    torch.testing.assert_close(value.detach(), 1e-3 * (torch.expm1(-d) + d))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), leaf)[0], 1e-3 * d)


def test_the_importance_weight_multiplies_the_gradient_alone() -> None:
    logp, batch = examples(["anchor:base"])
    leaf = logp.clone().requires_grad_()
    value = build("anchor", "base", importance_weight=True).penalty(leaf, batch, 1)
    torch.testing.assert_close(value, BaseAnchor().penalty(logp, batch, 1))
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    ratio = (logp - batch.behavior_logp).exp()
    torch.testing.assert_close(torch.autograd.grad(value.sum(), leaf)[0], 1e-3 * ratio * d)


def test_the_importance_weight_of_a_demonstration_is_1() -> None:
    """Its behavior log-probs are unknown; 0 stands in their place."""
    logp, batch = examples(["anchor:base"])
    expert = torch.arange(8) < 3
    behavior = torch.where(expert[:, None], 0.0, batch.behavior_logp)
    batch = replace(batch, expert=expert, behavior_logp=behavior)
    leaf = logp.clone().requires_grad_()
    value = build("anchor", "base", importance_weight=True).penalty(leaf, batch, 1)
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    ratio = torch.where(expert[:, None], 1.0, (logp - behavior).exp())
    torch.testing.assert_close(torch.autograd.grad(value.sum(), leaf)[0], 1e-3 * ratio * d)


@pytest.mark.parametrize(("beta", "held"), [(1e-3, True), (0.0, False)])
def test_a_previous_policy_that_nothing_reads_is_not_copied(beta: float, held: bool) -> None:
    anchor = kl_convex(beta=beta, start=0, interval=1)
    anchor.open(RunContext(read_by_loss=frozenset()))
    run = Run(anchor)
    run.step(1)
    assert ("previous" in anchor.frozen) == held


def test_in_the_reward_the_penalty_is_k1_whatever_the_estimator() -> None:
    logp, batch = examples(["anchor:base"])
    anchor = build("anchor", "base", placement="reward", beta=0.5, value_estimator="k2")
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    assert anchor.placement == "reward"
    torch.testing.assert_close(anchor.penalty(logp, replace(batch), 1), 0.5 * d)


@pytest.mark.parametrize("name", ["base", "kl_convex"])
def test_references_are_asked_for_as_long_as_there_is_a_penalty(name: str) -> None:
    assert build("anchor", name, beta=0.0).references(1) == ()
    assert build("anchor", name).references(1) == ("base",)


def test_the_papers_staircase_is_the_default() -> None:
    assert (
        build("anchor", "kl_convex").config.model_dump().items()
        >= {
            "start": 50,
            "interval": 10,
            "decrement": 0.1,
            "floor": 0.5,
        }.items()
    )
