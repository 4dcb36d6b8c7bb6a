"""Running out of memory: the micro-batches are halved and the step tried once more."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from rlkit.errors import UserError

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
