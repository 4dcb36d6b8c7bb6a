"""What an anchor must do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.interfaces import AnchorPolicy, State, Tokens
from rlkit.testing.base import require, stored
from rlkit.testing.losses import GARBAGE, examples

STEPS = (1, 2, 3, 59, 60, 61, 120, 121)
"""Steps at which an anchor is tried: early ones, and some at which a schedule has moved its
weights."""


class FakePolicy:
    """A policy of one number, which `freeze` copies."""

    def __init__(self, number: float = 0.0) -> None:
        self.number = torch.tensor(number)

    def freeze(self) -> FakePolicy:
        """A frozen copy of the policy as it is now."""
        return FakePolicy(float(self.number))

    def restore(self, state: State) -> FakePolicy:
        """A frozen policy with the weights of a state."""
        return FakePolicy(float(state["number"]))

    def logp(self, tokens: Tokens) -> Tensor:
        """The number at each response token."""
        return self.number.expand(tokens.response_ids.shape)

    def state_dict(self) -> State:
        """The number."""
        return {"number": self.number.clone()}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take another number."""
        self.number = torch.tensor(float(dict(weights)["number"]))


def life(anchor: AnchorPolicy[Any], policy: FakePolicy) -> Iterator[int]:
    """Take an anchor through the training loop's calls, yielding where a batch is prepared."""
    anchor.rebase(policy)
    for step in STEPS:
        yield step
        anchor.before_step(policy, step)
        policy.number += 1
        anchor.after_step(policy, step, {})


def held(anchor: AnchorPolicy[Any], step: int) -> dict[str, float | None]:
    """The number of each reference at a step, None for the policy at its start."""
    found = {name: anchor.reference(name) for name in anchor.references(step)}
    return {
        name: None if reference is None else float(reference.state_dict()["number"])
        for name, reference in found.items()
    }


def batch_for(anchor: AnchorPolicy[Any], step: int) -> tuple[Tensor, LossBatch]:
    """Log-probs and a batch with the references of a step."""
    return examples([f"anchor:{name}" for name in anchor.references(step)])


def every_reference_is_there_and_stands_still(anchor: AnchorPolicy[Any]) -> None:
    """Each named reference exists from the first step on, and does not move with the policy."""
    anchor = type(anchor)(anchor.config)
    policy = FakePolicy()
    for step in life(anchor, policy):
        before = held(anchor, step)
        policy.number += 0.5
        require(held(anchor, step) == before, "a reference moves with the policy; freeze it")
        policy.number -= 0.5


def the_penalty_is_zero_at_the_references(anchor: AnchorPolicy[Any]) -> None:
    """[B, T], 0 where the policy is the reference, 0 and blind to garbage where masked."""
    anchor = type(anchor)(anchor.config)
    for step in life(anchor, FakePolicy()):
        logp, batch = batch_for(anchor, step)
        here = replace(batch, anchor_logp=dict.fromkeys(batch.anchor_logp, logp))
        there = anchor.penalty(logp, here, step)
        require(there.shape == logp.shape, "the penalty is not [B, T]")
        require(there.abs().max() < 1e-12, "the penalty is not 0 where the policy is the reference")
        garbage = {n: torch.where(batch.mask, x, -GARBAGE) for n, x in batch.anchor_logp.items()}
        dirty = replace(batch, anchor_logp=garbage)
        leaf = torch.where(batch.mask, logp, GARBAGE).requires_grad_()
        value = anchor.penalty(leaf, dirty, step)
        require((value[~batch.mask] == 0).all(), "the penalty is not 0 at masked positions")
        require(
            torch.allclose(value, anchor.penalty(logp, batch, step)),
            "values at masked positions change the penalty; mask before exp",
        )
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            require(gradient.isfinite().all(), "the penalty has a gradient that is not finite")


def references_survive_a_checkpoint(anchor: AnchorPolicy[Any]) -> None:
    """An anchor restored from its state holds the same references, in that step and the next."""
    anchor = again = type(anchor)(anchor.config)
    policy = FakePolicy()
    previous = 0
    for step in life(anchor, policy):
        if again is not anchor:
            again.after_step(policy, previous, {})
        expected = held(anchor, step)
        require(
            held(again, step) == expected,
            "the references of the step after a resume differ; complete state_dict and restore",
        )
        again = type(anchor)(anchor.config)
        again.restore(policy, stored(anchor.state_dict()))
        require(held(again, step) == expected, "restore does not bring the references back")
        again.before_step(policy, step)
        previous = step


ANCHOR = (
    every_reference_is_there_and_stands_still,
    the_penalty_is_zero_at_the_references,
    references_survive_a_checkpoint,
)
