"""The global random generators, which user code may draw from; rlkit's own draws are stateless."""

from __future__ import annotations

import random

import numpy as np
import torch

from rlkit.interfaces import State


def seed_generators(seed: int) -> None:
    """Seed the global generators of random, numpy and torch, for user code that draws from them.

    On every rank alike: user code that decides what is trained must decide the same on each.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device | None = None) -> State:
    """The state of the global generators. Of the GPUs it is that of `device`; None = all."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(gpu) for gpu in _gpus(device)],
    }


def load_rng_state(state: State, device: torch.device | None = None) -> None:
    """Restore what `rng_state` returned, on another device if the run has moved to one."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    for gpu, held in zip(_gpus(device), state["cuda"], strict=False):
        torch.cuda.set_rng_state(held, gpu)


def _gpus(device: torch.device | None) -> list[torch.device]:
    """The device, if it is a GPU; None = every GPU there is."""
    if device is not None:
        return [device] if device.type == "cuda" else []
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
