"""What runs inside a vLLM worker, on stand-ins for vLLM."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from rlkit.rollout.vllm.worker import RlkitWorker


class Packed:
    """A method that multiplies by a copy made when weights are processed."""

    def process_weights_after_loading(self, head: Any) -> None:
        self.copy = head.weight.clone()

    def apply(self, head: Any, rows: torch.Tensor) -> torch.Tensor:
        return linear(rows, self.copy)


class Worker(RlkitWorker):
    """One on a small model."""

    def __init__(self) -> None:
        head = SimpleNamespace(weight=torch.ones(3, 2), quant_method=Packed())
        processor = SimpleNamespace(scale=2.0)
        self.model = SimpleNamespace(lm_head=head, logits_processor=processor)
        self.model_runner = SimpleNamespace(get_model=lambda: self.model)
        self.rlkit_rebuild_head()

    def reload_weights(self, weights_path: str) -> None:
        assert weights_path == "folder"
        self.model.lm_head.weight += 1


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    name = "vllm.model_executor.layers.vocab_parallel_embedding"
    layer: Any = SimpleNamespace(UnquantizedEmbeddingMethod=Packed)
    for parent in ("vllm", "vllm.model_executor", "vllm.model_executor.layers"):
        monkeypatch.setitem(sys.modules, parent, SimpleNamespace())
    monkeypatch.setitem(sys.modules, name, layer)
    return Worker()


def test_temperatures_divide_the_scale_the_model_came_with(worker: Worker) -> None:
    for temperature, scale in ((0.5, 4.0), (2.0, 1.0), (1.0, 2.0)):
        worker.rlkit_temperature(temperature)
        assert worker.model.logits_processor.scale == scale


def test_loaded_weights_are_packed_again(worker: Worker) -> None:
    worker.rlkit_load("folder")
    assert torch.equal(worker.model.lm_head.quant_method.copy, torch.full((3, 2), 2.0))
    assert worker.rlkit_stale_head() == 0


def test_a_head_that_was_not_packed_again_is_measured(worker: Worker) -> None:
    worker.model.lm_head.weight += 1
    assert worker.rlkit_stale_head() > 0.1
    worker.model.lm_head.quant_method = object()
    assert worker.rlkit_stale_head() == 0, "a quantized head has no plain product"
