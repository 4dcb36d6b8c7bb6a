"""Backward, clipping and optimizer step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.interfaces import State


class Backprop:
    """How a loss is back-propagated: here by plain torch."""

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and backward; `last` = the last one of a minibatch."""
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        value.backward()  # type: ignore[no-untyped-call]


class Learner(Backprop):
    """A module with its optimizer: accumulates gradients, updates weights."""

    def __init__(self, module: nn.Module, wrapped: nn.Module, optimizer: Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.wrapped = wrapped
        """The module to call for gradients."""

    def clip(self, max_norm: float) -> float:
        """Clip the gradient to a norm; returns its norm before clipping."""
        return float(full_tensor(nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)))

    def step(self) -> None:
        """One optimizer step; the gradient's memory is free afterwards."""
        self.optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clear the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self, *, keep: bool = True) -> State:
        """The optimizer's state with text keys and full tensors.

        Every rank must call it; those with `keep=False` get None instead of sharded tensors.
        """
        state = self.optimizer.state_dict()
        moments = {
            str(key): {name: full_tensor(value, keep=keep) for name, value in entry.items()}
            for key, entry in state["state"].items()
        }
        return {**state, "state": moments}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            int(key): {name: sharded_like(v, parameters[int(key)]) for name, v in entry.items()}
            for key, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": moments})


class DataParallelLearner(Learner):
    """DDP and FSDP: gradients are averaged over the ranks, so losses are scaled by world_size."""

    def __init__(
        self, module: nn.Module, wrapped: nn.Module, optimizer: Optimizer, accelerator: Any
    ) -> None:
        super().__init__(module, wrapped, optimizer)
        self.accelerator = accelerator

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of one micro-batch's forward and backward; the last one reduces gradients."""
        if last:
            return nullcontext()
        return cast("AbstractContextManager[None]", self.accelerator.no_sync(self.wrapped))

    def backward(self, value: Tensor) -> None:
        """Back-propagate this rank's part of a loss that is the sum over the ranks."""
        super().backward(value * self.accelerator.num_processes)


def full_tensor(value: Any, *, keep: bool = True) -> Any:
    """A sharded tensor gathered in full, on the CPU, or None if it is not kept.

    Other values are returned as they are.
    """
    if not is_sharded(value):
        return value
    whole = value.full_tensor()
    return whole.cpu() if keep else None


def sharded_like(value: Any, parameter: Tensor) -> Any:
    """A tensor sharded as a parameter of the same shape is, if that is sharded."""
    if not is_sharded(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    whole: Any = parameter
    return distribute_tensor(value.to(whole.device), whole.device_mesh, whole.placements)


def is_sharded(value: Any) -> bool:
    """Whether a tensor is sharded over the ranks."""
    return hasattr(value, "full_tensor")
