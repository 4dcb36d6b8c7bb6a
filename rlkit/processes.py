"""The processes that train together: one alone, or those `accelerate launch` or `torchrun` started.

All of them do the same, with the same buffer, random draws and decisions. What costs time is
divided: each generates a part of the responses, runs a part of the forwards and back-propagates a
part of each minibatch. Whatever one of them computes is gathered to all. The first alone writes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlkit.errors import UserError
from rlkit.interfaces import State

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: as long as generation and rewards of a step may take."""


class Processes:
    """One process alone, and what several have in common with it."""

    rank: int = 0
    count: int = 1
    divides_weights: bool = False
    """Whether each holds a part of the weights; then every forward is one of all processes."""

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
        return Learner(self, module, trained, optimizer)

    @contextmanager
    def whole(self, module: nn.Module) -> Generator[None]:
        """While it lasts, every process has all weights of a module, and may run it on its own."""
        yield


class Learner:
    """A module with its optimiser: gradients in, better weights out."""

    def __init__(
        self, processes: Processes, module: nn.Module, trained: nn.Module, optimizer: Optimizer
    ) -> None:
        self.processes, self.module, self.optimizer = processes, module, optimizer
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

    def state_dict(self) -> State:
        """The optimiser's state with text keys, in one piece in every process."""
        state = self.optimizer.state_dict()
        return {**state, "state": {str(k): whole_tree(v) for k, v in state["state"].items()}}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            int(key): {name: divided_like(v, parameters[int(key)]) for name, v in entry.items()}
            for key, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": moments})


def whole_tree(entry: Mapping[str, Any]) -> State:
    """Tensors by name, each in one piece."""
    return {name: undivided(value) for name, value in entry.items()}


def undivided(value: Any) -> Any:
    """A tensor in one piece, in every process, though each may hold a part of it."""
    return value.full_tensor() if is_divided(value) else value


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


ALONE = Processes()


class Several(Processes):
    """One of several processes, through accelerate."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=TIMEOUT),
                DistributedDataParallelKwargs(broadcast_buffers=False),
            ],
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
            wrapped: nn.Module = self.accelerator.prepare_model(module)
        return wrapped

    def learner(self, module: nn.Module, trained: nn.Module, optimizer: Optimizer) -> Learner:
        """What updates a module, of which `trained` is what `wrap` gave."""
        return SharedLearner(self, module, trained, optimizer)


class SharedLearner(Learner):
    """An update whose gradient is the mean of the processes', times their number."""

    processes: Several

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward of a micro-batch; they meet in the last one."""
        if last:
            return nullcontext()
        return cast(
            "AbstractContextManager[None]", self.processes.accelerator.no_sync(self.trained)
        )

    def backward(self, value: Tensor) -> None:
        """Back-propagate this process's part of a loss that is the sum of all parts."""
        super().backward(value * self.processes.count)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """What `state_dict` holds, as it is now: also while divided weights are whole."""
    out: dict[str, Tensor] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, tensor in own:
            if name not in part._non_persistent_buffers_set:  # pyright: ignore[reportPrivateUsage]
                out[f"{prefix}.{name}" if prefix else name] = tensor.detach()
    return out


def launched() -> tuple[int, int]:
    """Rank and number of the processes a launcher started, (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def asked_for(variable: str) -> bool:
    """Whether accelerate's launcher set a switch."""
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")


@cache
def open_processes(device: str) -> Processes:
    """Meet the other processes, if there are any, to train on a `model.device`.

    Raises UserError for a launch that this version cannot train under.
    """
    if launched()[1] == 1:
        return ALONE
    cpu = device == "cpu" or not torch.cuda.is_available()
    if asked_for("ACCELERATE_USE_DEEPSPEED"):
        from rlkit.zero import Zero

        return Zero(cpu=cpu)
    if not asked_for("ACCELERATE_USE_FSDP"):
        return Several(cpu=cpu)
    if cpu or os.environ.get("FSDP_VERSION") != "2":
        raise UserError("FSDP needs fsdp_version: 2 and GPUs; see configs/accelerate/fsdp2.yaml")
    from rlkit.sharded import Sharded

    return Sharded(cpu=False)


def close_processes() -> None:
    """Let the other processes go, if there were any."""
    if launched()[1] > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
