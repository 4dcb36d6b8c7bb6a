"""How rows are cut into micro-batches, and what happens if one does not fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from rlkit.distributed.processes import Processes
from rlkit.errors import UserError


def split_rows(lengths: Tensor, budget: int) -> list[Tensor]:
    """Partition rows, sorted by length, into micro-batches with rows * longest <= budget.

    One row always fits.
    lengths [B] in tokens; returns [b] int64 row indices.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    splits: list[Tensor] = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, budget // longest)
        splits.append(order[start : start + size])
        start += size
    return splits


def micro_batches(lengths: Tensor, budget: int, processes: Processes) -> list[Tensor]:
    """This process's micro-batches: `split_rows` of every count-th row, the longest first.

    Each process has as many; the last ones may be empty.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    shares = [order[rank :: processes.count] for rank in range(processes.count)]
    splits = [[share[part] for part in split_rows(lengths[share], budget)] for share in shares]
    own = splits[processes.rank]
    return own + [order[:0]] * (max(map(len, splits)) - len(own))


T = TypeVar("T")


CPU_MESSAGE = "can't allocate memory"
"""What torch's CPU allocator says in its RuntimeError."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory it asked for."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_MESSAGE in str(error)


class MicroBatches:
    """How many tokens a forward may have; fewer from the step on that did not fit."""

    def __init__(self, tokens: int, *, halves: bool = True) -> None:
        self.tokens = tokens
        self.halves = halves
        """Whether a step is tried again; not where other processes wait for this one's gradient."""
        self.halvings = 0

    def run(self, call: Callable[[int], T]) -> T:
        """`call` with the tokens of a micro-batch; where they do not fit, once more with half.

        The call must be able to start afresh. Raises UserError where half does not fit either.
        """
        try:
            return call(self.tokens)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if not self.halves:
                raise too_large(self.tokens) from error
        release()
        self.tokens, self.halvings = max(1, self.tokens // 2), self.halvings + 1
        try:
            return call(self.tokens)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self.tokens) from error


def too_large(tokens: int) -> UserError:
    """What the user reads where micro-batches of so many tokens do not fit."""
    return UserError(
        f"out of memory with micro-batches of {tokens} tokens; set train.micro_batch_tokens lower, "
        "model.gradient_checkpointing=true or shorter responses (rollout.max_completion_length)"
    )


def release() -> None:
    """Give back what the failed forward held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
