"""What every anchor brings: the penalty's parts, what is logged, the adaptive coefficient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.interfaces import AnchorConfig, AnchorPolicy
from rlkit.registry import build
from rlkit.testing.losses import examples

LOG2 = math.log(2)


class Two(AnchorPolicy):
    """Held to a with 0.75 and to b with 0.25; c has no weight."""

    def weights(self, step: int) -> Mapping[str, float]:
        return {"a": 0.75, "b": 0.25, "c": 0.0}

    def reference(self, name: str) -> None:
        return None

    def rebase(self, policy: Any) -> None:
        raise AssertionError


class Only(Two):
    """Held to a alone."""

    def weights(self, step: int) -> Mapping[str, float]:
        return {"a": 1.0}


class Named(AnchorPolicy):
    """It says which references it has, and of no share."""

    def references(self, step: int) -> tuple[str, ...]:
        return ("a", "b")

    def reference(self, name: str) -> None:
        return None

    def rebase(self, policy: Any) -> None:
        raise AssertionError


class Nameless(Named):
    """It says neither."""

    references = AnchorPolicy.references


def batch_of(logp: Tensor, **differences: float) -> LossBatch:
    """References and behavior so much below the policy, in nats."""
    _, batch = examples(frozenset())
    mask = torch.zeros_like(batch.mask)
    mask[0, 0] = True
    other = {name: logp - d for name, d in differences.items()}
    behavior, prox = (other.pop(name, logp) for name in ("behavior", "prox"))
    return replace(batch, mask=mask, behavior_logp=behavior, prox_logp=prox, anchor_logp=other)


def penalty(config: dict[str, Any], **differences: float) -> tuple[float, float]:
    """Value and derivative of the one token that is not masked."""
    batch_logp = examples(frozenset())[0].detach().double()
    logp = batch_logp.clone().requires_grad_()
    found = Two(AnchorConfig(**config)).penalty(logp, batch_of(batch_logp, **differences), 1)
    assert not found.flatten()[1:].any(), "masked"
    (gradient,) = torch.autograd.grad(found.sum(), logp)
    return found[0, 0].item(), gradient[0, 0].item()


BASE = {"beta": 0.5, "value_estimator": "k2", "gradient_estimator": "k2"}


@pytest.mark.parametrize(
    ("config", "value", "gradient"),
    [
        ({}, 0.75 * 2 + 0.25 * 0.5, 0.75 * 2 + 0.25),
        ({"value_estimator": "k1"}, 0.75 * 2 + 0.25, 0.75 * 2 + 0.25),
        ({"value_estimator": "k3", "placement": "reward"}, 0.75 * 2 + 0.25, 0.75 * 2 + 0.25),
        ({"log_ratio_clamp": 1.0}, 0.5, 0.25),
        ({"value_clamp": 1.0}, 0.75 + 0.25 * 0.5, 0.25),
        ({"importance_weight": True}, 1.625, 3 * 1.75),
    ],
)
def test_the_penalty_of_a_token_by_hand(
    config: dict[str, Any], value: float, gradient: float
) -> None:
    """2 nats above a, 1 above b: k2 is 2 and 1/2, its derivative 2 and 1; pi/behavior is 3."""
    found = penalty({**BASE, **config}, a=2.0, b=1.0, c=9.0, behavior=math.log(3))
    assert found == pytest.approx((0.5 * value, 0.5 * gradient))


K1 = {"beta": 0.5, "value_estimator": "k1", "gradient_estimator": "k1"}


@pytest.mark.parametrize(
    ("cap", "value", "gradient"), [(None, 2 * 1.75, 2 + 2 * 1.75), (1.5, 1.5 * 1.75, 1.5)]
)
def test_the_bias_correction_is_differentiated_up_to_its_cap(
    cap: float | None, value: float, gradient: float
) -> None:
    """k1 together 1.75 with derivative 1, times pi/prox = 2."""
    config = {**K1, "bias_correction": True, "bias_correction_cap": cap}
    found = penalty(config, a=2.0, b=1.0, c=9.0, prox=LOG2)
    assert found == pytest.approx((0.5 * value, 0.5 * gradient))
    in_reward = penalty({**config, "placement": "reward"}, a=2.0, b=1.0, c=9.0, prox=LOG2)
    assert in_reward == pytest.approx((0.5 * 1.75, 0.5)), "the loss's alone"


def expected_gradient(**config: Any) -> tuple[Tensor, Tensor]:
    """The penalty's gradient in six logits, expected over the samples of prox, and the KL's."""
    generator = torch.Generator().manual_seed(0)
    logits, prox, ref = torch.randn(3, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    _, batch = examples(frozenset())
    one = replace(
        batch,
        mask=torch.ones(1, 6, dtype=torch.bool),
        expert=batch.expert[:1],
        behavior_logp=prox[None],
        prox_logp=prox[None],
        anchor_logp={"a": ref[None]},
    )
    theta = logits.clone().requires_grad_()
    logp = theta.log_softmax(-1)
    anchor = Only(AnchorConfig(beta=1.0, **config))
    expectation = (prox.exp() * anchor.penalty(logp[None], one, 1)).sum()
    (found,) = torch.autograd.grad(expectation, theta, retain_graph=True)
    (wanted,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), theta)
    return found, wanted


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_with_the_bias_correction_the_expected_gradient_is_the_kls(kind: str) -> None:
    """Exact: every one of six actions, weighted by prox."""
    found, wanted = expected_gradient(
        bias_correction=True, value_estimator=kind, gradient_estimator=kind
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    found, wanted = expected_gradient(value_estimator=kind, gradient_estimator=kind)
    assert (found - wanted).norm() > 0.1 * wanted.norm(), "without it, it is not"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "set both to k3"),
        ({"value_estimator": "k1"}, "set both to k1"),
        ({"value_estimator": "k2"}, "set both to k3"),
        ({"gradient_estimator": "k3", "importance_weight": True}, "choose one of them"),
    ],
)
def test_the_bias_correction_is_refused_where_it_is_biased(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        build("anchor", "base", bias_correction=True, **fields)


def test_what_has_no_weight_or_no_penalty_needs_no_forward() -> None:
    assert Two().references(1) == ("a", "b")
    assert Two(AnchorConfig(beta=0)).references(1) == ()
    assert Two().number("a") is None


def test_references_without_shares_count_fully() -> None:
    logp = examples(frozenset())[0].detach().double()
    found = Named(AnchorConfig(beta=0.5, value_estimator="k1")).penalty(
        logp, batch_of(logp, a=2.0, b=1.0), 1
    )
    assert Named().weights(1) == {"a": 1.0, "b": 1.0}
    assert found[0, 0].item() == pytest.approx(0.5 * (2 + 1))
    with pytest.raises(UserError, match="Nameless names no reference: define weights or referenc"):
        Nameless().references(1)


def test_the_logged_kl_is_the_weighted_sum_without_beta() -> None:
    logp = examples(frozenset())[0].detach().double()
    anchor = Two(AnchorConfig(value_estimator="k1", beta=0.125))
    found = anchor.metrics(logp, batch_of(logp, a=2.0, b=1.0, c=9.0), 1)
    assert found.keys() == {"kl", "kl_a", "kl_b"}
    assert [found[name][0, 0].item() for name in ("kl", "kl_a", "kl_b")] == pytest.approx(
        [1.75, 2, 1]
    )


def test_a_target_moves_the_coefficient_and_so_the_penalty() -> None:
    anchor = Two(AnchorConfig(target_kl=0.1, horizon=10))
    anchor.after_step(None, 1, {"anchor/kl": 9.0})  # type: ignore[arg-type]
    assert anchor.factor == pytest.approx(1.02)
    anchor.after_step(None, 2, {})  # type: ignore[arg-type]
    assert anchor.factor == pytest.approx(1.02), "a step without a penalty says nothing"
    logp = examples(frozenset())[0].detach().double()
    batch = batch_of(logp, a=2.0, b=1.0, c=9.0)
    moved = anchor.penalty(logp, batch, 1)[0, 0].item()
    assert moved == pytest.approx(1.02 * Two(anchor.config).penalty(logp, batch, 1)[0, 0].item())
    fixed = Two()
    fixed.after_step(None, 1, {"anchor/kl": 9.0})  # type: ignore[arg-type]
    assert fixed.factor == 1


def test_a_state_without_references_needs_no_policy() -> None:
    class Counting(Two):
        count = 0

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.count = state["count"]

    anchor, policy = Counting(), cast("Any", None)
    anchor.restore(policy, {"count": 3})
    assert anchor.count == 3
