"""Log-probs under a frozen base are computed once a sample and base, and kept with the sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlkit
from rlkit.batch import Group
from rlkit.interfaces import Tokens
from rlkit.models.policy import FrozenPolicy, Policy
from rlkit.models.rows import computed
from rlkit.testing.base import stored
from rlkit.training.cached import CachedLogprobs
from rlkit.training.collate import collate
from rlkit.training.micro_batches import Forwards, MicroBatches
from rlkit.training.prepare import prepare
from rlkit.training.references import Parts
from tests.steps import move, prepared, rollout, scorer
from tests.tiny import make_policy


def held(anchor: str, **fields: Any) -> Parts:
    return Parts(
        loss=rlkit.build("loss", "topr"),
        corrections=(),
        advantage=rlkit.build("advantage", "group_norm"),
        anchor=rlkit.build("anchor", anchor, **fields),
    )


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each forward of a reference had."""
    seen: list[int] = []
    real = FrozenPolicy.logp

    def counted(self: FrozenPolicy, tokens: Tokens) -> torch.Tensor:
        seen.append(len(tokens.lengths))
        return real(self, tokens)

    monkeypatch.setattr(FrozenPolicy, "logp", counted)
    return seen


def of(
    groups: list[Group], policy: Policy, step: int, chosen: Parts, name: str = "base"
) -> torch.Tensor:
    return prepared(policy, groups, step, chosen).loss.anchor_logp[name]


def test_a_replayed_sample_costs_no_second_forward_and_a_fresh_one_does(rows: list[int]) -> None:
    policy, chosen = make_policy(), held("base")
    chosen.anchor.rebase(policy)
    old = rollout(policy, step=1)
    first = of(old, policy, 1, chosen)
    assert sum(rows) == 16
    move(policy)
    new = rollout(policy, step=2)
    rows.clear()
    both = of(new + old, policy, 2, chosen)
    assert sum(rows) == 16, "the new ones alone"
    mask = prepared(policy, new + old, 2, chosen).loss.mask
    assert torch.equal(both[16:][mask[16:]], first[: len(both)][mask[16:, : first.shape[1]]])


def test_what_is_kept_is_what_would_be_computed() -> None:
    policy, chosen = make_policy(), held("base")
    chosen.anchor.rebase(policy)
    groups = rollout(policy, step=1)
    of(groups, policy, 1, chosen)
    move(policy)
    kept = of(groups, policy, 2, chosen)
    for sample in (s for g in groups for s in g.samples):
        sample.extras.clear()
    torch.testing.assert_close(kept, of(groups, policy, 2, chosen), atol=1e-6, rtol=0)


def test_a_rebase_makes_what_is_kept_stale(rows: list[int]) -> None:
    policy, chosen = make_policy(), held("base")
    chosen.anchor.rebase(policy)
    groups = rollout(policy, step=1)
    before = of(groups, policy, 1, chosen)
    move(policy)
    chosen.anchor.rebase(policy)
    rows.clear()
    after = of(groups, policy, 2, chosen)
    assert sum(rows) == 16
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(
        after,
        prepare(groups, 2, held_to_prox(), scorer(policy, "rounded", budget=10_000)).loss.prox_logp,
        atol=1e-5,
        rtol=0,
    )
    kept = [key for g in groups for s in g.samples for key in s.extras]
    assert len(kept) == 16, "the old base's are gone"


def held_to_prox() -> Parts:
    return Parts(
        loss=rlkit.build("loss", "remix"),
        corrections=(),
        advantage=rlkit.build("advantage", "group_norm"),
        anchor=rlkit.build("anchor", "none"),
    )


@pytest.mark.parametrize(
    ("anchor", "kept"),
    [
        ("base", True),
        ("kl_convex", True),
        ("convex", True),
        ("ema", False),
        ("tr_dpo", False),
        ("periodic", False),
        ("lagged", False),
    ],
)
def test_only_a_base_that_does_not_move_is_kept(anchor: str, kept: bool) -> None:
    policy, chosen = make_policy(), held(anchor)
    chosen.anchor.rebase(policy)
    groups = rollout(policy, step=1)
    of(groups, policy, 1, chosen)
    assert all(bool(s.extras) == kept for g in groups for s in g.samples)
    assert (chosen.anchor.number("base") is not None) == kept


def test_a_reference_is_split_by_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its padded rows fit the budget where the policy would share their prompts."""
    policy, budget, seen = make_policy(), 30, []
    groups, frozen = rollout(policy, step=1), policy.freeze()
    rows, real = collate(groups, 1), FrozenPolicy.logp
    assert frozen.layout == "padded" and computed(rows.tokens, "padded") > 3 * budget

    def noted(self: FrozenPolicy, tokens: Tokens) -> torch.Tensor:
        seen.append(computed(tokens, self.layout))
        return real(self, tokens)

    monkeypatch.setattr(FrozenPolicy, "logp", noted)
    forwards = Forwards(MicroBatches(budget, layout="shared_prefix"))
    found = CachedLogprobs("x", None).logp(frozen, rows.samples, rows.tokens, forwards)
    assert max(seen) <= budget
    torch.testing.assert_close(found, policy.logp(rows.tokens), atol=1e-5, rtol=0)


def test_the_number_of_a_base_outlives_a_checkpoint() -> None:
    policy, chosen = make_policy(), held("base")
    for _ in range(3):
        chosen.anchor.rebase(policy)
    again = held("base")
    again.anchor.restore(policy, stored(chosen.anchor.state_dict()))
    assert again.anchor.number("base") == chosen.anchor.number("base") == 3
