"""Which forwards a step needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import rlkit
from rlkit.training.collate import collate
from rlkit.training.references import (
    BehaviorLogp,
    ForwardPlan,
    Parts,
    plan_forwards,
    references_in,
)
from tests.steps import move, parts, rollout
from tests.tiny import make_policy

FIRST = torch.tensor([True, False] * 4)
"""Rows of the first minibatch: one of each two; the first four rows are fresh."""
FRESH = torch.tensor([True] * 4 + [False] * 4)


def planned(chosen: Parts, behavior: BehaviorLogp) -> ForwardPlan:
    policy = make_policy()
    old = rollout(policy, step=1, n=2, prompts=2)
    move(policy)
    groups = rollout(policy, step=3, n=2, prompts=2) + old
    return plan_forwards(collate(groups, 3), 3, chosen, behavior, FIRST)


def rows(chosen: torch.Tensor) -> list[int]:
    return chosen.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("loss", "behavior", "before", "late", "compared"),
    [
        ("ppo", "own", ~FRESH & ~FIRST, ~FRESH & FIRST, ~FRESH & FRESH),
        ("ppo", "rounded", ~FIRST, FIRST, FRESH),
        ("ppo", "foreign", ~FIRST, FIRST, FRESH),
        ("topr", "own", FIRST & ~FIRST, FIRST & ~FIRST, FIRST & ~FIRST),
        ("topr", "rounded", FIRST & ~FIRST, FIRST & ~FIRST, FIRST & ~FIRST),
        ("topr", "foreign", FIRST & ~FIRST, FRESH & FIRST, FRESH & FIRST),
    ],
)
def test_the_first_minibatch_scores_its_rows_itself(
    loss: str,
    behavior: BehaviorLogp,
    before: torch.Tensor,
    late: torch.Tensor,
    compared: torch.Tensor,
) -> None:
    """PPO's ratio is to pi_k, TOPR's to the policy that sampled."""
    plan = planned(parts(loss), behavior)
    assert plan.policy_rows.tolist() == rows(before)
    assert (rows(plan.late), rows(plan.compared)) == (rows(late), rows(compared))


@pytest.mark.parametrize("early", ["advantage", "reward"])
def test_what_is_read_before_the_updates_is_not_left_to_them(early: str) -> None:
    chosen = parts("ppo")
    if early == "reward":
        chosen = replace(chosen, anchor=rlkit.build("anchor", "base", placement="reward", beta=0.1))
        chosen.anchor.rebase(make_policy())
    else:
        chosen.advantage.needs = frozenset({"prox"})
    plan = planned(chosen, "own")
    assert plan.policy_rows.tolist() == rows(~FRESH) and not plan.late.any()


def test_a_mask_that_reads_prox_has_it_before_the_updates() -> None:
    """Unlike a weight, a mask changes what every token of the minibatch counts."""
    for name, late in (("geo_mask", []), ("trm", []), ("tis", rows(FIRST))):
        chosen = replace(parts("ppo"), corrections=[(name, rlkit.build("correction", name))])
        plan = planned(chosen, "foreign")
        assert rows(plan.late) == late and len(plan.policy_rows) == 8 - len(late)


def test_a_mask_that_reads_an_anchor_in_the_place_of_prox_waits_for_nothing() -> None:
    mask = rlkit.build("correction", "trm")
    chosen = replace(parts("decoupled_ppo", "ppo_ewma"), corrections=[("trm", mask)])
    chosen.anchor.rebase(make_policy())
    assert rows(planned(chosen, "foreign").late) == rows(FRESH & FIRST)


def test_an_advantage_may_read_a_reference_and_pi_k_before_the_updates() -> None:
    """MOPD compares a teacher with pi_k: stale rows are scored early, whatever minibatch."""
    chosen = parts("importance_sampling", "teacher", "mopd")
    chosen.anchor.rebase(make_policy())
    plan = planned(chosen, "own")
    assert list(plan.references) == ["teacher"] and plan.references["teacher"] is not None
    assert plan.policy_rows.tolist() == rows(~FRESH) and not plan.late.any()
    assert references_in({"prox", "anchor:base"}) == {"base"}


def test_a_weighted_penalty_reads_the_behavior_policy() -> None:
    """So that data without its log-probs is refused before the run begins."""
    chosen = parts("grpo")
    assert not chosen.needs("behavior")
    anchor = rlkit.build("anchor", "base", importance_weight=True)
    assert replace(chosen, anchor=anchor).needs("behavior")
