"""How rows are split into micro-batches, and what happens if one does not fit in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import Tokens

T = TypeVar("T")
CPU_MESSAGE = "can't allocate memory"
"""What torch's CPU allocator says in its RuntimeError."""


def split_rows(lengths: Tensor, budget: int) -> list[Tensor]:
    """Partition rows, sorted by length, into micro-batches with rows * longest <= budget.

    One row always fits. lengths [B] in tokens; returns [b] int64 row indices.
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
    """This rank's micro-batches: `split_rows` of every world_size-th row, the longest first.

    Every rank has equally many; the last ones may be empty.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    shares = [order[rank :: processes.world_size] for rank in range(processes.world_size)]
    splits = [[share[part] for part in split_rows(lengths[share], budget)] for share in shares]
    own = splits[processes.rank]
    return own + [order[:0]] * (max(map(len, splits)) - len(own))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory it asked for."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_MESSAGE in str(error)


class MicroBatches:
    """How many tokens a micro-batch may have; fewer once one did not fit."""

    def __init__(self, tokens: int, *, halves: bool = True) -> None:
        self.tokens = tokens
        self.halves = halves
        """Whether a call is tried again; not if other ranks wait for this one's gradient."""
        self.halvings = 0

    def run(self, call: Callable[[int], T]) -> T:
        """`call` with the tokens of a micro-batch; if they do not fit, once more with half.

        It must be safe to call again from the start. Raises UserError if half does not fit either.
        """
        try:
            return call(self.tokens)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if not self.halves:
                raise too_large(self.tokens) from error
        release()
        self.halve(1)
        try:
            return call(self.tokens)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self.tokens) from error

    def halve(self, times: int) -> None:
        """Halve the tokens `times` times."""
        self.tokens, self.halvings = max(1, self.tokens // 2**times), self.halvings + times


def too_large(tokens: int) -> UserError:
    """The error if micro-batches of this many tokens do not fit."""
    return UserError(
        f"out of memory with micro-batches of {tokens} tokens; set train.micro_batch_tokens lower, "
        "model.gradient_checkpointing=true or shorter responses (rollout.max_completion_length)"
    )


def release() -> None:
    """Release the memory that the failed forward held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Forwards:
    """Forwards without gradient over many rows, in micro-batches shared by the ranks."""

    def __init__(self, micro: MicroBatches, processes: Processes = SINGLE) -> None:
        self.micro, self.processes = micro, processes

    def by_rows(
        self,
        forward: Callable[[Tokens], Tensor],
        tokens: Tokens,
        rows: Tensor,
        features: tuple[int, ...] = (),
    ) -> Tensor:
        """`forward` ([b, t, *features]) on the given rows: [len(rows), T, *features] on the CPU.

        Zeros where padded.
        """
        shape = (len(rows), tokens.response_ids.shape[1], *features)

        @torch.no_grad()
        def call(budget: int) -> Tensor:
            out = torch.zeros(shape)
            for part in micro_batches(tokens.lengths[rows], budget, self.processes):
                if len(part):
                    value = forward(tokens.rows(rows[part])).float()
                    out = out.to(value.device)  # and back when all are there: one wait
                    out[part, : value.shape[1]] = value
                elif self.processes.shards_weights:  # other ranks cannot run a forward alone
                    forward(tokens.rows(rows[:1]))
            return self.processes.all_reduce(out).cpu()

        return self.micro.run(call) if len(rows) else torch.zeros(shape)
