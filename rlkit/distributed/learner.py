"""What carries out an update: back-propagation, the norm of the gradient, the optimiser's step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.interfaces import State


class Learner:
    """A module with its optimiser: gradients in, better weights out."""

    def __init__(self, module: nn.Module, trained: nn.Module, optimizer: Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.trained = trained
        """What to call in place of the module where gradients are wanted."""

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward of a micro-batch; `last` = the minibatch's last one."""
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Back-propagate this process's part of a loss that is the sum of all parts."""
        value.backward()  # type: ignore[no-untyped-call]

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to a norm; returns the norm it had."""
        return float(undivided(nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)))

    def step(self) -> None:
        """One step of the optimiser."""
        self.optimizer.step()

    def drop(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self, *, kept: bool = True) -> State:
        """The optimiser's state with text keys, in one piece.

        Of several processes all take part; those that do not keep it get None for its pieces.
        """
        state = self.optimizer.state_dict()
        moments = {
            str(key): {name: undivided(value, kept=kept) for name, value in entry.items()}
            for key, entry in state["state"].items()
        }
        return {**state, "state": moments}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            int(key): {name: divided_like(v, parameters[int(key)]) for name, v in entry.items()}
            for key, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": moments})


class SharedLearner(Learner):
    """An update whose gradient is the mean of the processes', times their number."""

    def __init__(
        self, module: nn.Module, trained: nn.Module, optimizer: Optimizer, accelerator: Any
    ) -> None:
        super().__init__(module, trained, optimizer)
        self.accelerator = accelerator

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward of a micro-batch; they meet in the last one."""
        if last:
            return nullcontext()
        return cast("AbstractContextManager[None]", self.accelerator.no_sync(self.trained))

    def backward(self, value: Tensor) -> None:
        """Back-propagate this process's part of a loss that is the sum of all parts."""
        super().backward(value * self.accelerator.num_processes)


def undivided(value: Any, *, kept: bool = True) -> Any:
    """A tensor in one piece, of which each process may hold a part: then on the CPU, or not kept.

    Other values are as they are.
    """
    if not is_divided(value):
        return value
    whole = value.full_tensor()
    return whole.cpu() if kept else None


def divided_like(value: Any, model: Tensor) -> Any:
    """A tensor divided as another one of its shape is, if that is."""
    if not is_divided(model) or value.shape != model.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    whole: Any = model
    return distribute_tensor(value.to(whole.device), whole.device_mesh, whole.placements)


def is_divided(value: Any) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(value, "full_tensor")
