"""What runs inside a vLLM worker, on stand-ins for vLLM."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import linear

from rlkit.rollout.vllm.worker import Arrivals, RlkitWorker, checksum, wrapped


class Packed:
    """A method that multiplies by a copy made when weights are processed."""

    def process_weights_after_loading(self, head: Any) -> None:
        self.copy = head.weight.clone()

    def apply(self, head: Any, rows: torch.Tensor) -> torch.Tensor:
        return linear(rows, self.copy)


class Worker(RlkitWorker):
    """One on a small model, whose loader casts to the parameters' dtype."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        weight = torch.nn.Parameter(torch.ones(3, 2, dtype=dtype))
        head = SimpleNamespace(weight=weight, quant_method=Packed())
        self.model = SimpleNamespace(
            lm_head=head,
            logits_processor=SimpleNamespace(scale=2.0),
            named_parameters=lambda: [("lm_head.weight", weight)],
        )
        self.model_runner = SimpleNamespace(get_model=lambda: self.model)
        self.model_config = SimpleNamespace(dtype=dtype)
        self.rlkit_rebuild_head()

    @torch.no_grad()
    def reload_weights(self, weights_iterator: Iterable[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in weights_iterator:
            assert name == "lm_head.weight"
            self.model.lm_head.weight.copy_(tensor)


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


def test_loaded_weights_are_packed_again_and_found_to_be_those_of_the_file(
    worker: Worker, tmp_path: Path
) -> None:
    new = torch.tensor([[1.5, -2.0], [0.1, 3.0], [0.0, 1e-3]])
    save_file({"lm_head.weight": new}, tmp_path / "model.safetensors")
    report = worker.rlkit_load(str(tmp_path))
    assert torch.equal(worker.model.lm_head.quant_method.copy, new)
    assert worker.rlkit_stale_head() <= 1
    assert report == {
        "received": {"lm_head.weight": checksum(new)},
        "compared": ["lm_head.weight"],
        "different": [],
    }


@pytest.mark.usefixtures("worker")
def test_weights_are_cast_to_the_engines_dtype_and_compared_in_it() -> None:
    half = Worker(torch.bfloat16)
    assert half.rlkit_dtype() == "bfloat16"
    report = half.rlkit_take([("lm_head.weight", torch.full((3, 2), 0.1))])
    assert report["compared"] == ["lm_head.weight"] and not report["different"]
    assert torch.equal(half.model.lm_head.weight, torch.full((3, 2), 0.1).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_was_not_packed_again_is_measured(worker: Worker, dtype: torch.dtype) -> None:
    """Also if it is 2 % off, which bfloat16 can just express; its rounding alone is not."""
    some = Worker(dtype)
    head = some.model.lm_head
    packed = head.quant_method.copy
    head.quant_method.copy = packed * (1 + 2**-9)
    assert dtype == torch.float32 or some.rlkit_stale_head() <= 1
    head.quant_method.copy = packed * (1 + 2**-5)
    assert some.rlkit_stale_head() > 1
    head.quant_method = object()
    assert some.rlkit_stale_head() == 0, "a quantized head has no plain product"


def test_a_checksum_is_the_sum_of_bit_patterns() -> None:
    """Those of 1.0 are 0x3f800000 and 0x3f80; of -2.0 0xc0000000 and 0xc000, as signed integers."""
    both = torch.tensor([1.0, -2.0])
    assert checksum(both) == 0x3F800000 + 0xC0000000 - 2**32
    assert checksum(both.bfloat16()) == 0x3F80 + 0xC000 - 2**16
    assert wrapped(2**63) == -(2**63) and wrapped(-(2**63) - 1) == 2**63 - 1


def test_packed_padded_and_reordered_weights_are_found_and_changed_ones_named() -> None:
    """q, k and v in one parameter, an embedding with a row of padding, a bias that is cast."""
    draws = torch.Generator().manual_seed(0)
    names = ("a.q.weight", "a.k.weight", "a.v.weight", "embed.weight", "a.q.bias", "lost.weight")
    sent = {name: torch.randn(2, 4, generator=draws) for name in names}
    held = {
        "a.qkv.weight": torch.cat(
            [sent[name] for name in ("a.k.weight", "a.q.weight", "a.v.weight")]
        ),
        "embed.weight": torch.cat([sent["embed.weight"], torch.zeros(1, 4)]),
        "a.qkv.bias": sent["a.q.bias"].bfloat16(),
    }
    arrivals = Arrivals({n: t.dtype for n, t in held.items()}, {"qkv": ["q", "k", "v"]})
    assert dict(arrivals.read(sent.items())) == sent
    report = arrivals.report(held)
    assert report["received"] == {name: checksum(tensor) for name, tensor in sent.items()}
    assert report["compared"] == sorted(set(names) - {"lost.weight"})
    assert report["different"] == []
    held["a.qkv.weight"][3, 2] = torch.nextafter(held["a.qkv.weight"][3, 2], torch.tensor(9.0))
    assert arrivals.report(held)["different"] == ["a.k.weight", "a.q.weight", "a.v.weight"]
    held["a.qkv.weight"] = torch.empty(0)
    held["a.qkv.bias"] = held["a.qkv.bias"].float()
    assert arrivals.report(held)["compared"] == ["embed.weight"], "packed in a form of its own"
    del held["embed.weight"]
    assert arrivals.report(held)["compared"] == []
