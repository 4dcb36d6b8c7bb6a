"""What anchors share whose reference is an average of the policy's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from anchors.base import BASE, BaseAnchor
from rlkit.interfaces import AC, FreezablePolicy, State


def numbers(weights: State) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors; those that share their memory (tied weights) once."""
    seen: set[int] = set()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def rest(weights: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors without floating-point numbers, which no average is taken of."""
    return ((name, x) for name, x in weights.items() if not x.is_floating_point())


def fine(dtype: torch.dtype) -> torch.dtype:
    """The type an average is held in: float32, or float64 if the weights are."""
    return torch.promote_types(dtype, torch.float32)


def fine_copy(weights: State) -> State:
    """A copy that an average can start from."""
    return {name: x.to(fine(x.dtype), copy=True) for name, x in numbers(weights)}


def mix(mean: State, weights: State, share: float) -> Iterator[tuple[str, Tensor]]:
    """mean <- (1 - share) mean + share weights, in place, tensor by tensor as it is iterated over.

    Gives the names and new tensors, and those of `weights` that hold no floating-point numbers.
    """
    for name, old in numbers(mean):
        yield name, old.lerp_(weights[name].to(old), share)
    yield from rest(weights)


def rounds(weights: State) -> bool:
    """Whether a policy with these weights would round an average."""
    return any(tensor.dtype != fine(tensor.dtype) for _, tensor in numbers(weights))


class AveragingAnchor(BaseAnchor[AC]):
    """Held to a base that follows the policy.

    A reference shows an average of the policy's weights. The average itself is kept beside it only
    if the policy's type would round it: in bfloat16 a small share would be lost. So a reference
    costs one copy, and one in float32 more under a bfloat16 policy; both are changed in place, one
    tensor after the other.

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

    def is_read(self, name: str) -> bool:
        """Whether something reads the reference; an average always reads the base."""
        return name == BASE or super().is_read(name)

    def number(self, name: str) -> int | None:
        """None: the references move."""
        return None

    def move(self, policy: FreezablePolicy) -> None:
        """Called after each step, with `steps` counted: what the references become."""

    def follow(self, policy: FreezablePolicy, name: str, share: float) -> None:
        """reference <- (1 - share) reference + share policy; a share of 1 is a copy."""
        if share == 1:
            self.means.pop(name, None)
            self.take(name, policy)
            return
        if name not in self.frozen:
            start = self.reference(name)
            assert start is not None
            self.frozen[name] = policy.restore(start.state_dict())
        shown = self.frozen[name].state_dict()
        if name not in self.means and rounds(shown):
            self.means[name] = fine_copy(shown)
        mixed = mix(self.means.get(name, shown), policy.state_dict(), share)
        self.frozen[name].load(mixed)

    def after_step(self, policy: FreezablePolicy, step: int, metrics: Mapping[str, float]) -> None:
        """Count the step and move the references."""
        super().after_step(policy, step, metrics)
        self.steps += 1
        self.move(policy)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base, and start the averages there."""
        self.means, self.steps, self.frozen = {}, 0, {}
        super().rebase(policy)

    def close(self) -> None:
        """Let go of the references and their averages."""
        super().close()
        self.means = {}

    def state_dict(self) -> State:
        """The base's state, the averages, and the steps counted."""
        means: dict[str, Any] = dict(self.means)
        return super().state_dict() | {"means": means, "steps": self.steps}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`."""
        super().restore(policy, state)
        self.steps = state["steps"]
        shown = [reference.state_dict() for reference in self.frozen.values()]
        devices = {name: x.device for held in shown for name, x in held.items()}
        self.means = {
            name: {key: tensor.to(devices[key]) for key, tensor in mean.items()}
            for name, mean in state["means"].items()
        }
