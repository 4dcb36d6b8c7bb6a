"""Anchors taken through the calls of the training loop, over a policy of one number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from rlkit.interfaces import AnchorPolicy, State, Tokens
from rlkit.testing.anchors import held
from rlkit.testing.base import stored


class CountedPolicy:
    """A policy of one number that counts how often it was copied, anew or over an older copy."""

    def __init__(self, number: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        self.number = torch.tensor(number, dtype=dtype)
        self.copies = 0

    def freeze(self) -> CountedPolicy:
        """A frozen copy."""
        self.copies += 1
        return CountedPolicy(float(self.number), self.number.dtype)

    def restore(self, state: State) -> CountedPolicy:
        """A frozen policy with the weights of a state, in the policy's own type."""
        return CountedPolicy(float(state["number"]), self.number.dtype)

    def logp(self, tokens: Tokens) -> Tensor:
        """The number at each response token."""
        return self.number.expand(tokens.response_ids.shape)

    def state_dict(self) -> State:
        """The number."""
        self.copies += 1
        return {"number": self.number.clone()}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take another number, which costs no copy."""
        self.number = dict(weights)["number"].to(self.number.dtype, copy=True)


class Run:
    """The calls of the training loop; pi_k, where step k starts, holds the number k - 1."""

    def __init__(self, anchor: AnchorPolicy[Any], dtype: torch.dtype = torch.float32) -> None:
        self.anchor, self.policy, self.done = anchor, CountedPolicy(0, dtype), 0
        anchor.rebase(self.policy)

    def step(self) -> dict[str, float | None]:
        """The number each reference holds while the step's log-probs are taken."""
        step = self.done = self.done + 1
        found = held(self.anchor, step)
        if self.anchor.proximal is not None:
            reference = self.anchor.reference(self.anchor.proximal)
            assert reference is not None
            found[self.anchor.proximal] = float(reference.state_dict()["number"])
        self.anchor.before_step(self.policy, step)
        self.policy.number.fill_(step)
        self.anchor.after_step(self.policy, step, {})
        return found

    def steps(self, n: int) -> list[dict[str, float | None]]:
        """What the references hold in each of the next steps."""
        return [self.step() for _ in range(n)]

    def one(self, n: int, name: str = "base") -> list[float | None]:
        """What one reference holds in each of the next steps."""
        return [found[name] for found in self.steps(n)]

    def rebirth(self) -> None:
        """The policy becomes the base."""
        self.anchor.rebase(self.policy)


def resumed(run: Run) -> Run:
    """The run continued from a checkpoint."""
    again = Run(type(run.anchor)(run.anchor.config), run.policy.number.dtype)
    again.policy.number.copy_(run.policy.number)
    again.done = run.done
    again.anchor.restore(again.policy, stored(run.anchor.state_dict()))
    return again
