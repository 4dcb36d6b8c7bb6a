"""What anchors share whose reference is an average of the policy's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anchors.base import BaseAnchor
from rlkit.interfaces import AC, FreezablePolicy, State


def mix(mean: State, weights: State, share: float) -> State:
    """(1 - share) mean + share weights, by name.

    In float32, or in float64 if the weights are. Tensors that hold no floating-point numbers are
    those of `weights`.
    """

    def one(old: Tensor, new: Tensor) -> Tensor:
        if not new.is_floating_point():
            return new.clone()
        dtype = torch.promote_types(new.dtype, torch.float32)
        return torch.lerp(old.to(new.device, dtype), new.to(dtype), share)

    return {name: one(mean[name], value) for name, value in weights.items()}


def rounds(mean: State, weights: State) -> bool:
    """Whether a policy with these weights holds the mean in a coarser type than the mean's own."""
    return any(mean[name].dtype != value.dtype for name, value in weights.items())


class AveragingAnchor(BaseAnchor[AC]):
    """Held to a base that follows the policy.

    A reference shows an average of the policy's weights. The average itself is kept beside it only
    if the policy's type would round it: in bfloat16 a small share would be lost. So a reference
    costs one copy, and one in float32 more under a bfloat16 policy.

    The base always stands, also at beta = 0: a loss may read it, and a schedule may raise beta.
    """

    def __init__(self, config: AC | None = None) -> None:
        super().__init__(config)
        self.means: dict[str, State] = {}
        """Reference name -> its average, if the reference itself rounds it."""
        self.steps = 0
        """Steps since the last rebase."""

    @property
    def averages_weights(self) -> bool:
        """True, unless a subclass knows that its settings copy whole policies."""
        return True

    def number(self, name: str) -> int | None:
        """None: the references move."""
        return None

    def move(self, policy: FreezablePolicy) -> None:
        """Called after each step, with `steps` counted: what the references become."""

    def follow(self, policy: FreezablePolicy, name: str, share: float) -> None:
        """reference <- (1 - share) reference + share policy; a share of 1 is a copy."""
        if share == 1:
            self.means.pop(name, None)
            self.frozen[name] = policy.freeze()
            return
        weights = policy.freeze().state_dict()
        mean = mix(self.mean(name), weights, share)
        self.means.pop(name, None)
        if rounds(mean, weights):
            self.means[name] = mean
        self.frozen[name] = policy.restore(mean)

    def mean(self, name: str) -> State:
        """The average a reference shows."""
        if name in self.means:
            return self.means[name]
        reference = self.reference(name)
        assert reference is not None
        return reference.state_dict()

    def after_step(self, policy: FreezablePolicy, step: int, metrics: Mapping[str, float]) -> None:
        """Count the step and move the references."""
        super().after_step(policy, step, metrics)
        self.steps += 1
        self.move(policy)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base, and start the averages there."""
        self.means, self.steps, self.frozen = {}, 0, {}
        super().rebase(policy)

    def state_dict(self) -> State:
        """The base's state, the averages, and the steps counted."""
        means: dict[str, Any] = dict(self.means)
        return super().state_dict() | {"means": means, "steps": self.steps}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`."""
        super().restore(policy, state)
        self.means, self.steps = dict(state["means"]), state["steps"]
