"""What tensors take in memory: the bytes of live storages, and their peak while something runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Storages(TorchDispatchMode):
    """Counts the storages that are made inside this context, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if is_tensor(x)}
        out = func(*args, **(kwargs or {}))
        for tensor in filter(is_tensor, tree_leaves(out)):
            self._note(tensor, before)
        return out

    def _note(self, tensor: Tensor, before: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in before or key in self.seen:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: Any) -> None:
            del self.seen[key]
            self.live -= size

        self.seen[key] = weakref.ref(storage, gone)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def size_of(weights: Mapping[str, Tensor]) -> int:
    """The bytes of the tensors; shared memory counts once."""
    return sum({x.data_ptr(): x.nbytes for x in weights.values()}.values())


def largest(weights: Mapping[str, Tensor]) -> int:
    """The bytes that the largest tensor takes in float32."""
    return max(x.numel() for x in weights.values()) * torch.finfo(torch.float32).bits // 8
