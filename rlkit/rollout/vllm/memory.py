"""Where vLLM runs, and what memory it takes beside the trainer."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from rlkit.errors import UserError
from rlkit.models.policy import Policy

WEIGHTS, KV_CACHE = "weights", "kv_cache"
"""vLLM's names for what it frees while it sleeps."""
WITH_WEIGHTS, WITHOUT_WEIGHTS = 1, 2
"""vLLM's sleep levels: its weights are copied to host memory, or forgotten."""
SMALLER = (
    "set a smaller rollout.kv_cache_gb, or use model.dtype=bfloat16, model.lora.r=16 or "
    "anchor.device=cpu"
)
WANTS = {
    "larger than the available kv cache memory": (
        "set a larger rollout.kv_cache_gb, or a smaller rollout.max_completion_length"
    ),
    "free memory on device": SMALLER,
    "no available memory": SMALLER,
    "out of memory": SMALLER,
}
"""What vLLM says, in lower case, when it wants memory, and what then helps."""
LONGEST_WORDS = 300
"""Characters of vLLM's own words that an error shows."""


def placement(
    policy: Policy, dtype: torch.dtype, kv_cache_gb: float, share: float | None
) -> dict[str, Any]:
    """vLLM's arguments for its device and its memory; `share` is rollout.gpu_memory_utilization.

    On a GPU it takes the policy's own card, else it would always take the first. vLLM starts only
    if `gpu_memory_utilization` of the card's memory is free, even if the size of its cache is
    given; its default is 0.92, though the trainer's model is there already.
    """
    cache = int(kv_cache_gb * 2**30)
    sizes: dict[str, Any] = {"kv_cache_memory_bytes": cache} if share is None else {}
    if share is not None:
        sizes["gpu_memory_utilization"] = share
    if policy.device.type != "cuda":
        return sizes
    total = torch.cuda.mem_get_info(policy.device)[1]
    weights = sum(p.numel() for p in policy.model.parameters()) * dtype.itemsize
    needed = {"gpu_memory_utilization": min(1.0, (weights + cache) / total)}
    return {**needed, **sizes, "device_ids": [policy.device.index or 0]}


@contextmanager
def room_for_vllm(when: str) -> Generator[None]:
    """Turns what vLLM raises for want of memory into a UserError that says what to lower.

    It tells of too little with a ValueError when it starts, and of an allocation that failed with
    a RuntimeError of its own.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        advice = next((words for text, words in WANTS.items() if text in said.lower()), None)
        if advice is None:
            raise
        raise UserError(
            f"vLLM had too little memory as it {when}: {said[:LONGEST_WORDS]}; {advice}"
        ) from error


class Sleeper:
    """An engine that sleeps between generations and leaves its memory to the trainer.

    At level 2 its weights are forgotten: they need memory again (`wake(WEIGHTS)`) and then a sync
    before the cache gets memory. vLLM itself keeps what no sync brings, buffers such as rotary
    frequencies and CUDA graphs, in host memory. Level 0 = the platform has no sleep.
    """

    def __init__(self, llm: Any, level: int) -> None:
        self.llm, self.level = llm, level

    @property
    def asleep(self) -> bool:
        """Whether any of its memory is freed."""
        return self.level > 0 and bool(self.llm.llm_engine.is_sleeping())

    @property
    def frees_weights(self) -> bool:
        """Whether it sleeps without its weights."""
        return self.level == WITHOUT_WEIGHTS

    def wake(self, *parts: str) -> None:
        """Give memory to what is asleep; vLLM does nothing if one of the parts is not."""
        if self.asleep:
            with room_for_vllm("woke up"):
                self.llm.wake_up(tags=list(parts))

    def rest(self) -> None:
        """Free what the engine can, if it is awake."""
        if self.level > 0 and not self.asleep:
            self.llm.sleep(level=self.level)
