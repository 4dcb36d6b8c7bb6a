"""Held to one frozen policy: where the run, or the life since the last rebirth, began.

A penalty on the KL to the policy that training starts from (arXiv:1909.08593). Status: exact; value
and gradient are by the estimators of the fields, and the rebirth is ReMix's (arXiv:2507.06892).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rlkit.errors import UserError
from rlkit.interfaces import (
    AC,
    AnchorConfig,
    AnchorPolicy,
    FreezablePolicy,
    FrozenCopy,
    Reference,
    State,
)
from rlkit.registry import register

BASE = "base"


@register("anchor", "base")
class BaseAnchor(AnchorPolicy[AC]):
    """beta KL(pi || pi_base), with pi_base the policy of the last rebase."""

    Config = AnchorConfig
    sources: ClassVar[tuple[str, ...]] = ("1909.08593",)

    def __init__(self, config: AC | None = None) -> None:
        super().__init__(config)
        self.frozen: dict[str, FrozenCopy] = {}
        """Reference name -> frozen policy."""
        self.rebases = 0
        """How often the base was set, which numbers it."""

    def weights(self, step: int) -> Mapping[str, float]:
        """All on the base."""
        return {BASE: 1.0}

    def reference(self, name: str) -> Reference | None:
        """The frozen policy of that name."""
        return self.frozen[name]

    def number(self, name: str) -> int | None:
        """The base's; other references move each step."""
        return self.rebases if name == BASE else None

    def is_read(self, name: str) -> bool:
        """Whether the penalty or the loss reads the reference, so that a copy is worth making."""
        read = self.context.read_by_loss
        return self.config.beta != 0 or read is None or name in read

    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base, of which a copy is held if it is read."""
        if self.is_read(BASE):
            self.take(BASE, policy)
        else:
            self.frozen.pop(BASE, None)
        self.rebases += 1

    def take(self, name: str, policy: FreezablePolicy) -> None:
        """Make the current policy a reference, in the memory of the copy it had."""
        if name in self.frozen:
            self.frozen[name].load(policy.state_dict().items())
        else:
            self.frozen[name] = policy.freeze()

    def close(self) -> None:
        """Let go of every frozen policy."""
        self.frozen = {}

    def state_dict(self) -> State:
        """The weights of each frozen policy, and the factor of the coefficient."""
        frozen = {name: reference.state_dict() for name, reference in self.frozen.items()}
        return {"factor": self.factor, "frozen": frozen, "rebases": self.rebases}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`; the policy rebuilds the frozen ones.

        Raises UserError if the base is read, and was not before.
        """
        if state["rebases"] and BASE not in state["frozen"] and self.is_read(BASE):
            raise UserError(
                "this run kept no copy of its base, since nothing read it (anchor.beta=0); go on "
                "without it, or begin a new run"
            )
        self.factor, self.rebases = state["factor"], state["rebases"]
        self.frozen = {name: policy.restore(weights) for name, weights in state["frozen"].items()}
