"""The centre of the clip: its average by hand, and what it replaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anchors.ppo_ewma import PpoEwma, PpoEwmaConfig
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.registry import build
from rlkit.testing.losses import examples
from tests.anchors.running import Run, resumed
from tests.steps import move, parts, prepared, rollout


def ppo_ewma(**fields: Any) -> PpoEwma:
    return PpoEwma(PpoEwmaConfig(**fields))


def test_the_average_is_that_of_all_policies_by_their_age() -> None:
    """sum_i decay^i theta_{k-i} / sum_i decay^i, back to the policy of the rebase."""
    found = Run(ppo_ewma(decay=0.5)).one(5, "proximal")
    for k, value in enumerate(found):
        powers = [0.5**i for i in range(k + 1)]
        expected = sum(p * (k - i) for i, p in enumerate(powers)) / sum(powers)
        assert value == pytest.approx(expected, abs=1e-6)


def test_without_memory_it_is_the_policy_the_step_starts_from() -> None:
    assert Run(ppo_ewma(decay=0.0)).one(4, "proximal") == [0, 1, 2, 3]


def test_by_default_it_replaces_pi_k_and_adds_no_penalty() -> None:
    anchor = ppo_ewma()
    assert anchor.proximal == "proximal" and anchor.references(1) == ()
    assert anchor.config.decay / (1 - anchor.config.decay) == pytest.approx(8, abs=0.01)


def test_the_penalty_is_half_the_squared_log_ratio_to_the_proximal_policy() -> None:
    logp, batch = examples(["anchor:proximal"])
    d = torch.where(batch.mask, logp - batch.anchor_logp["proximal"], 0.0)
    torch.testing.assert_close(ppo_ewma(beta=0.3).penalty(logp, batch, 1), 0.3 * 0.5 * d.square())


def test_a_rebirth_starts_the_average_again() -> None:
    run = Run(ppo_ewma(decay=0.5))
    run.steps(3)
    run.rebirth()
    found = run.one(2, "proximal")
    assert found == [3, pytest.approx((0.5 * 3 + 4) / 1.5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_average_goes_on_the_same(dtype: torch.dtype) -> None:
    run = Run(ppo_ewma(), dtype)
    run.steps(4)
    assert resumed(run).one(20, "proximal") == run.one(20, "proximal")


UNBIASED = {"bias_correction": True, "value_estimator": "k3", "gradient_estimator": "k3"}


@pytest.mark.parametrize("fields", [{"placement": "reward"}, UNBIASED])
def test_what_reads_pi_k_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="whose place the proximal policy takes"):
        build("anchor", "ppo_ewma", **fields)


def test_the_batchs_proximal_log_probs_are_those_of_the_average(policy: Policy) -> None:
    """At first the policy's own; after a move, neither the old policy's nor the new one's."""
    chosen = parts("decoupled_ppo", "ppo_ewma")
    chosen.anchor.rebase(policy)
    groups = rollout(policy, 1)
    first = prepared(policy, groups, 1, chosen).loss
    torch.testing.assert_close(first.prox_logp, first.behavior_logp)
    move(policy)
    chosen.anchor.after_step(policy, 1, {})
    batch = prepared(policy, groups, 2, chosen)
    own = torch.where(batch.loss.mask, policy.logp(batch.tokens), 0.0)
    found = torch.where(batch.loss.mask, batch.loss.prox_logp, 0.0)
    assert not torch.allclose(found, own) and not torch.allclose(found, first.prox_logp)
    chosen.anchor.rebase(policy)
    found = torch.where(batch.loss.mask, prepared(policy, groups, 3, chosen).loss.prox_logp, 0.0)
    torch.testing.assert_close(found, own)
