"""Out of memory: recognizing it, freeing what a failed forward held, saying what to lower."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

import torch

from rlkit.errors import UserError

MESSAGES = ("can't allocate memory", "cuda error: out of memory")
"""What torch's CPU allocator says in its RuntimeError, and CUDA itself, in lower case."""
SMALLER = "shorter responses (rollout.max_completion_length), or model.dtype=bfloat16"
"""What makes any forward take less."""
OPTIMIZER = (
    "in the optimizer step, whose first one allocates its moments; use model.lora.r=16, "
    "train.optimizer=adamw_8bit, anchor.device=cpu (an anchor's copies in host memory), or shard "
    "the weights over several GPUs (docs/scaling.md)"
)
ELSEWHERE = (
    "outside forwards and updates; use model.dtype=bfloat16, keep anchors' copies in host memory "
    "(anchor.device=cpu), or shard the weights over several GPUs (docs/scaling.md)"
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory it asked for."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(each in said for each in MESSAGES)


def release() -> None:
    """Release the memory of what nothing holds any more, such as a failed forward's."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def explained(where: str) -> Generator[None]:
    """Turns running out of memory inside this context into a UserError: where, and what to do."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory {where}") from error
