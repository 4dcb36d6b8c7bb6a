"""The global generators are seeded, kept and continued."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.runs.checkpoint import load_tree, save_tree
from rlkit.runs.generators import load_rng_state, rng_state, seed_generators


def test_the_global_generators_continue_exactly(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    draw()
    save_tree(tmp_path / "rng", rng_state())
    expected = draw()
    draw()
    load_rng_state(load_tree(tmp_path / "rng"))
    assert draw() == expected


def test_a_seed_sets_every_global_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    held = rng_state()
    try:
        for seed in (0, 2**63 - 1):
            seed_generators(seed)
            first = draw()
            seed_generators(seed)
            assert draw() == first
        seed_generators(1)
        assert all(a != b for a, b in zip(draw(), first, strict=True))
    finally:
        load_rng_state(held)


def test_the_generator_of_the_gpu_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs only that of the device; all of them where no device is named."""
    held = {torch.device("cuda", i): torch.full((2,), i, dtype=torch.uint8) for i in range(2)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, gpu: held.update({gpu: state}))
    first, second = held
    state, both = rng_state(second), rng_state()
    assert [x.tolist() for x in state["cuda"]] == [[1, 1]]
    assert rng_state(torch.device("cpu"))["cuda"] == []
    assert [x.tolist() for x in both["cuda"]] == [[0, 0], [1, 1]]
    load_rng_state(state, first)
    assert held[first].tolist() == [1, 1]
    load_rng_state(both)
    assert held[first].tolist() == [0, 0] and held[second].tolist() == [1, 1]
