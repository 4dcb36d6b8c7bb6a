"""Several ranks as threads of this process, which meet where real ones would."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlkit.distributed.processes import Processes

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds a rank waits for the others before it fails."""


class Meeting(Processes):
    """One of several ranks; what they sum must have one shape, as with real ones."""

    def __init__(self, rank: int, held: list[Any], barrier: Barrier) -> None:
        self.rank, self.world_size = rank, len(held)
        self.held, self.barrier = held, barrier

    def on_main(self, call: Callable[[], T]) -> T:
        if self.is_main:
            self.held[0] = call()
        self.barrier.wait()
        told: T = self.held[0]
        self.barrier.wait()
        return told

    def all_reduce(self, tensor: Tensor) -> Tensor:
        self.held[self.rank] = tensor.detach().clone()
        self.barrier.wait()
        found = [held for held in self.held if held is not None]
        assert len({held.shape for held in found}) == 1, "ranks that wait for different sums"
        total = torch.stack(found).sum(0).to(tensor.dtype)
        self.barrier.wait()
        return total


def on_ranks(call: Callable[[Processes], T], count: int = 2) -> list[T]:
    """What a call returns on each rank."""
    held, barrier = list[Any]([None] * count), Barrier(count, timeout=PATIENCE)
    ranks = [Meeting(rank, held, barrier) for rank in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, ranks))
