"""How rows are split into micro-batches, and what happens if one does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.memory import SMALLER, is_out_of_memory, release
from rlkit.models.rows import Layout, computed
from rlkit.training.splits import split

T = TypeVar("T")


TOKENS, TOKENS_ON_CPU = 16384, 2048
"""Tokens of a micro-batch unless the configuration says how many."""


def default_tokens(device: torch.device) -> int:
    """Tokens of a micro-batch on a device."""
    return TOKENS_ON_CPU if device.type == "cpu" else TOKENS


class OtherRank(torch.OutOfMemoryError):
    """Memory did not suffice on another rank."""


class MicroBatches:
    """How many tokens a micro-batch may have; fewer once one did not fit.

    Ranks halve together. Each calls `agree` before it waits for the others, and learns there that
    one ran out of memory, which has called it in its place. After the last time no rank can tell.
    """

    def __init__(
        self, tokens: int, processes: Processes = SINGLE, layout: Layout = "padded"
    ) -> None:
        self.tokens, self.processes = tokens, processes
        self.layout: Layout = layout
        self.halvings = 0
        self.computed, self.needed = 0, 0
        """Tokens of the micro-batches since the last metrics, and those without padding."""
        self.agreed = False
        """Whether the others already count on this rank's result."""

    def split(self, tokens: Tokens, budget: int) -> list[Tensor]:
        """This rank's micro-batches of a batch: [b] int64 rows each."""
        return split(tokens, budget, self.processes, self.layout)

    def note(self, tokens: Tokens) -> None:
        """Count a micro-batch in the metrics."""
        self.computed += computed(tokens, self.layout)
        self.needed += computed(tokens, "shared_prefix")

    def metrics(self) -> dict[str, float]:
        """What the ranks used since the last call; every rank must call it."""
        used = torch.tensor([self.computed, self.needed], dtype=torch.float64)
        computed, needed = self.processes.all_reduce(used).tolist()
        wasted = 1 - needed / computed if computed else 0.0
        self.computed = self.needed = 0
        return {"memory/micro_batch_tokens": self.tokens, "perf/padding_fraction": wasted}

    def run(self, call: Callable[[int], T], least: int = 1) -> T:
        """`call` with the tokens of a micro-batch, halved for as long as they do not fit.

        It must be safe to call again from the start. `least` are those of the longest sequence,
        which is a micro-batch of its own: fewer do not help. Raises UserError then, and where ranks
        cannot agree.
        """
        while True:
            self.agreed = False
            try:
                return call(self.tokens)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if not self._told(error):
                    raise too_large(self.tokens) from error
                if self.tokens <= least:
                    raise too_long(least) from error
            release()
            self.halve(1)

    def agree(self, *, last: bool) -> None:
        """Wait for every rank to get here; `last` = none can run out of memory unnoticed after it.

        Raises OtherRank if memory did not suffice on one.
        """
        if self.processes.world_size == 1 or self.processes.shards_weights:
            return
        if self.processes.all_reduce(torch.zeros(1)).any():
            raise OtherRank("memory did not suffice on another rank")
        self.agreed = last

    def _told(self, error: RuntimeError) -> bool:
        """Whether every rank knows of an error: tells the others, if they can be told.

        Ranks with shards of the weights wait for each other inside every forward.
        """
        if self.processes.world_size == 1 or isinstance(error, OtherRank):
            return True
        if self.processes.shards_weights or self.agreed:
            return False
        self.processes.all_reduce(torch.ones(1))
        return True

    def halve(self, times: int) -> None:
        """Halve the tokens `times` times."""
        self.tokens, self.halvings = max(1, self.tokens // 2**times), self.halvings + times


def too_large(tokens: int) -> UserError:
    """The error if micro-batches of this many tokens do not fit and cannot be halved."""
    return UserError(
        f"out of memory with micro-batches of {tokens} tokens, which these processes cannot halve "
        f"by themselves; set train.micro_batch_tokens lower, model.gradient_checkpointing=true, "
        f"{SMALLER}"
    )


def too_long(tokens: int) -> UserError:
    """The error if a sequence of this many tokens does not fit alone."""
    return UserError(
        f"out of memory with a single sequence of {tokens} tokens; set "
        f"model.gradient_checkpointing=true, {SMALLER}"
    )


def some_rows(tokens: Tokens, rows: Tensor) -> Tokens:
    """The sequences at `rows`, or one if there are none: a model cannot run without any."""
    return tokens.rows(rows if len(rows) else torch.zeros(1, dtype=torch.int64))


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
        layout: Layout | None = None,
    ) -> Tensor:
        """`forward` ([b, t, *features]) on the given rows: [len(rows), T, *features] on the CPU.

        Zeros where padded. `layout` is how it lays out sequences; None = as the policy does.
        """
        shape = (len(rows), tokens.response_ids.shape[1], *features)

        @torch.no_grad()
        def call(budget: int) -> Tensor:
            out = torch.zeros(shape)
            laid_out = layout or self.micro.layout
            for part in split(tokens.rows(rows), budget, self.processes, laid_out):
                if len(part):
                    value = forward(tokens.rows(rows[part])).float()
                    out = out.to(value.device)  # and back when all are there: one wait
                    out[part, : value.shape[1]] = value
                elif self.processes.shards_weights:  # other ranks cannot run a forward alone
                    forward(tokens.rows(rows[:1]))
            self.micro.agree(last=True)
            return self.processes.all_reduce(out).cpu()

        if not len(rows):
            return torch.zeros(shape)
        return self.micro.run(call, int(tokens.lengths[rows].max()))
