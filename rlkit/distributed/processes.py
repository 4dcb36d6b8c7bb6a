"""The processes that train together: a single one, or those a launcher started.

All ranks hold the same buffer, draw the same random numbers and make the same decisions. The
expensive work is split: each rank generates some of the responses, runs some of the forwards and
back-propagates some of each minibatch. Results are gathered on every rank. Only the main process
writes files and talks to the user.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.distributed.learner import DataParallelLearner, Learner, ReplicatedLearner
from rlkit.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long a rank waits for the others: generation and rewards of a step may take that long."""


class Processes:
    """A single process, and the interface of multi-process training."""

    rank: int = 0
    world_size: int = 1
    shards_weights: bool = False
    """Whether each rank holds only a shard of the weights; a forward then needs every rank."""
    owns_precision: bool = False
    """Whether the engine, not the run, sets the precision of forwards and optimizer steps."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """The value of every rank, in order."""
        return [value]

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on its own device."""
        return tensor

    def on_main(self, call: Callable[[], T]) -> T:
        """Run `call` in the main process alone; every rank gets what it returns or raises."""
        return call()

    def share(self, count: int) -> slice:
        """Which of `count` items this rank handles; shares differ by at most one item."""
        ends = [count * rank // self.world_size for rank in range(self.world_size + 1)]
        return slice(ends[self.rank], ends[self.rank + 1])

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module to call for gradients, which are then reduced over the ranks. Called once."""
        return module

    def learner(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        optimizer: Optimizer,
        previous: Learner | None = None,
    ) -> Learner:
        """Backward, clipping and optimizer step of a module that `wrap` wrapped.

        `previous` is the learner it had before, whose float32 weights go on; it must not be used
        afterwards.
        """
        return Learner(module, wrapped, optimizer, previous)

    @contextmanager
    def full_weights(self, module: nn.Module) -> Generator[None]:
        """Gathers full weights on every rank inside this context."""
        yield


SINGLE = Processes()


class MultiProcess(Processes):
    """A rank of a multi-process run, through accelerate."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes

    def all_gather(self, value: T) -> list[T]:
        """The value of every rank, in order."""
        out: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(out, value)
        return out

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on its own device."""
        moved = tensor.detach().to(self.accelerator.device, copy=True)
        torch.distributed.all_reduce(moved)
        return moved.to(tensor.device)

    def on_main(self, call: Callable[[], T]) -> T:
        """Run `call` in the main process alone; every rank gets what it returns or raises."""
        told: list[Any] = [None, None]
        failed: Exception | None = None
        if self.is_main:
            try:
                told[0] = call()
            except Exception as error:
                failed, told[1] = error, f"the main process failed: {error}"
        torch.distributed.broadcast_object_list(told)
        if failed is not None:
            raise failed
        if told[1] is not None:
            raise UserError(told[1])
        result: T = told[0]
        return result

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself, with the main process's weights on every rank."""
        for weight in module.parameters():
            whole = weight.detach().contiguous()
            torch.distributed.broadcast(whole, 0)
            weight.detach().copy_(whole)
        return module

    def learner(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        optimizer: Optimizer,
        previous: Learner | None = None,
    ) -> Learner:
        """Backward, clipping and optimizer step of a module that `wrap` wrapped."""
        if self.shards_weights:
            return DataParallelLearner(module, wrapped, optimizer, self.accelerator, previous)
        return ReplicatedLearner(module, wrapped, optimizer, previous)


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """The entries of `state_dict`, read now; works inside `full_weights` too."""
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, part in module.named_modules(remove_duplicate=False)
        for name, tensor in own_weights(part)
    }


def own_weights(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The entries of `state_dict` that belong to the module itself, not to a module in it."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    skipped = module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
    return [(name, tensor.detach()) for name, tensor in own if name not in skipped]
