"""The processes that train together: one alone, or those `accelerate launch` or `torchrun` started.

All of them do the same, with the same buffer, random draws and decisions. What costs time is
divided: each generates a part of the responses, runs a part of the forwards and back-propagates a
part of each minibatch. Whatever one of them computes is gathered to all. The first alone writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rlkit.distributed.learner import Learner, SharedLearner
from rlkit.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: as long as generation and rewards of a step may take."""


class Processes:
    """One process alone, and what several have in common with it."""

    rank: int = 0
    count: int = 1
    divides_weights: bool = False
    """Whether each holds a part of the weights; then every forward is one of all processes."""
    rules_precision: bool = False
    """Whether forwards and steps have a precision of their own, so that none can be asked for."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks."""
        return [value]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, on its device."""
        return tensor

    def first(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises in the first process, which alone runs it."""
        return call()

    def own(self, count: int) -> slice:
        """Which of `count` things are this process's: as many as the others', or one more."""
        ends = [count * rank // self.count for rank in range(self.count + 1)]
        return slice(ends[self.rank], ends[self.rank + 1])

    def wrap(self, module: nn.Module) -> nn.Module:
        """What to call in place of a module that learns, so that its gradients are summed."""
        return module

    def learner(self, module: nn.Module, trained: nn.Module, optimizer: Optimizer) -> Learner:
        """What updates a module, of which `trained` is what `wrap` gave."""
        return Learner(module, trained, optimizer)

    @contextmanager
    def whole(self, module: nn.Module) -> Generator[None]:
        """While it lasts, every process has all weights of a module, and may run it on its own."""
        yield


ALONE = Processes()


class Several(Processes):
    """One of several processes, through accelerate."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
        self.rank = self.accelerator.process_index
        self.count = self.accelerator.num_processes

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks."""
        out: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(out, value)
        return out

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, on its device."""
        moved = tensor.detach().to(self.accelerator.device, copy=True)
        torch.distributed.all_reduce(moved)
        return moved.to(tensor.device)

    def first(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises in the first process, which alone runs it."""
        told: list[Any] = [None, None]
        failed: Exception | None = None
        if self.is_first:
            try:
                told[0] = call()
            except Exception as error:
                failed, told[1] = error, f"the first process failed: {error}"
        torch.distributed.broadcast_object_list(told)
        if failed is not None:
            raise failed
        if told[1] is not None:
            raise UserError(told[1])
        result: T = told[0]
        return result

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module inside DistributedDataParallel, which averages gradients."""
        with warnings.catch_warnings():  # newer torch calls broadcast_buffers by another name
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(module, broadcast_buffers=False)

    def learner(self, module: nn.Module, trained: nn.Module, optimizer: Optimizer) -> Learner:
        """What updates a module, of which `trained` is what `wrap` gave."""
        return SharedLearner(module, trained, optimizer, self.accelerator)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """What `state_dict` holds, as it is now: also while divided weights are whole."""
    out: dict[str, Tensor] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, tensor in own:
            if name not in part._non_persistent_buffers_set:  # pyright: ignore[reportPrivateUsage]
                out[f"{prefix}.{name}" if prefix else name] = tensor.detach()
    return out
