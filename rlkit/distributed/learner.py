"""Backward, clipping and optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.distributed.masters import Masters
from rlkit.interfaces import State

AT_ONCE = 2**24
"""Elements that one message between ranks sums."""
TORCH_EPSILON = 1e-6
"""What torch adds to a norm that it divides by: below max_norm - this it would multiply by 1."""


class Backprop:
    """How a loss is back-propagated: here by plain torch."""

    @property
    def scale(self) -> int:
        """What `backward` multiplies by, for gradients that are averaged over the ranks."""
        return 1

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and backward; `last` = the last one of a minibatch."""
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        value.backward()  # type: ignore[no-untyped-call]

    def zero_grad(self) -> None:
        """Clear the gradient."""


class Learner(Backprop):
    """A module with its optimizer: accumulates gradients, updates weights.

    Weights in half precision are updated through float32 masters.
    """

    def __init__(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        optimizer: Optimizer,
        previous: Learner | None = None,
    ) -> None:
        self.module, self.optimizer = module, optimizer
        self.wrapped = wrapped
        """The module to call for gradients."""
        place = {weight: number for number, weight in enumerate(module.parameters())}
        self._places = [place[w] for group in optimizer.param_groups for w in group["params"]]
        """Where each of the optimizer's parameters is in `module.parameters()`."""
        before = previous.masters if previous is not None else None
        self.masters: Masters = Masters(module, optimizer, before)

    def clip(self, max_norm: float) -> float:
        """Scale a gradient of a larger norm down to this one; returns its norm before that."""
        trained = self.masters.trained
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        # None = as torch sees fit, which for sharded gradients is one after the other
        at_once = all(gradient.is_cuda for gradient in gradients) or None
        norm = nn.utils.get_total_norm(gradients, foreach=at_once)
        length = float(full_tensor(norm))
        if length + TORCH_EPSILON > max_norm:
            nn.utils.clip_grads_with_norm_(trained, max_norm, norm, foreach=at_once)
        return length

    def step(self) -> None:
        """One optimizer step; the gradient's memory is free afterwards."""
        self.optimizer.step()
        self.masters.write()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clear the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self, *, keep: bool = True) -> State:
        """The optimizer's state with text keys and full tensors, and the masters if there are any.

        `state` is by the weights' places in `module.parameters()`, whatever their groups. Every
        rank must call it; those with `keep=False` get None instead of sharded tensors.
        """
        state = self.optimizer.state_dict()
        moments = {self._places[key]: entry for key, entry in state["state"].items()}
        state["state"] = {str(key): moments[key] for key in sorted(moments)}
        if self.masters:
            state["masters"] = self.masters.state_dict()
        for group in state["param_groups"]:
            group["params"] = [self._places[key] for key in group["params"]]
        return cast("State", full_tensors(state, keep=keep))

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned; hyperparameters stay those of this optimizer."""
        own = self.optimizer.state_dict()
        trained = self.masters.trained
        for group, saved in zip(own["param_groups"], state["param_groups"], strict=False):
            group["lr"] = saved["lr"]  # until the next step sets it
        own["state"] = {
            key: sharded_alike(state["state"][str(place)], trained[place])
            for key, place in enumerate(self._places)
            if str(place) in state["state"]
        }
        self.optimizer.load_state_dict(own)
        masters = state.get("masters", {})
        self.masters.load_state_dict(
            {place: sharded_like(value, trained[int(place)]) for place, value in masters.items()}
        )


class DataParallelLearner(Learner):
    """FSDP2: gradients are averaged over the ranks, so losses are scaled by world_size."""

    def __init__(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        optimizer: Optimizer,
        accelerator: Any,
        previous: Learner | None = None,
    ) -> None:
        super().__init__(module, wrapped, optimizer, previous)
        self.accelerator = accelerator

    @property
    def scale(self) -> int:
        """What `backward` multiplies by."""
        count: int = self.accelerator.num_processes
        return count

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of one micro-batch's forward and backward; the last one reduces gradients.

        With masters each one does: what waited for the last would add up in half precision.
        """
        if last or self.masters:
            return nullcontext()
        return cast("AbstractContextManager[None]", self.accelerator.no_sync(self.wrapped))

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        super().backward(value * self.scale)


class ReplicatedLearner(Learner):
    """Every rank holds all weights: what each adds up over its micro-batches is summed at the end.

    No forward or backward waits for another rank, so that one which runs out of memory can tell
    the others, and weights that a forward does not use hold nobody up.
    """

    def clip(self, max_norm: float) -> float:
        """Sum the gradient over the ranks and clip it; returns its norm before clipping."""
        sum_gradients(self.masters.trained)
        return super().clip(max_norm)


@torch.no_grad()
def sum_gradients(weights: Sequence[Tensor]) -> None:
    """Sum gradients over the ranks, many at once; what has none on any rank stays without."""
    has = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
    has = has.to(weights[0].device)
    torch.distributed.all_reduce(has)
    found: list[Tensor] = []
    for weight, ranks in zip(weights, has.tolist(), strict=True):
        if ranks and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        found += [] if weight.grad is None else [weight.grad]
    for some in together(found):
        if len(some) == 1 and some[0].is_contiguous():
            torch.distributed.all_reduce(some[0])
            continue
        flat = torch.cat([gradient.flatten() for gradient in some])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in some])
        for gradient, part in zip(some, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def together(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in their order, as many as have at most AT_ONCE elements and one type."""
    some: list[Tensor] = []
    for tensor in tensors:
        full = sum(each.numel() for each in some) + tensor.numel() > AT_ONCE
        if some and (full or some[0].dtype != tensor.dtype):
            yield some
            some = []
        some.append(tensor)
    if some:
        yield some


def full_tensor(value: Any, *, keep: bool = True) -> Any:
    """A sharded tensor gathered in full, on the CPU, or None if it is not kept.

    Other values are returned as they are.
    """
    if not is_sharded(value):
        return value
    whole = value.full_tensor()
    return whole.cpu() if keep else None


def full_tensors(tree: Any, *, keep: bool = True) -> Any:
    """Nested dicts with every sharded tensor gathered by `full_tensor`."""
    if isinstance(tree, dict):
        return {name: full_tensors(value, keep=keep) for name, value in tree.items()}
    return full_tensor(tree, keep=keep)


def sharded_like(value: Any, parameter: Tensor) -> Any:
    """A tensor sharded as a parameter of the same shape is, if that is sharded."""
    if not is_sharded(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    whole: Any = parameter
    return distribute_tensor(value.to(whole.device), whole.device_mesh, whole.placements)


def sharded_alike(tree: Any, parameter: Tensor) -> Any:
    """Nested dicts with every tensor sharded by `sharded_like`."""
    if isinstance(tree, dict):
        return {name: sharded_alike(value, parameter) for name, value in tree.items()}
    return sharded_like(tree, parameter)


def is_sharded(value: Any) -> bool:
    """Whether a tensor is sharded over the ranks."""
    return hasattr(value, "full_tensor")
