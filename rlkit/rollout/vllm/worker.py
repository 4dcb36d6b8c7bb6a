"""What runs inside a vLLM worker: weights in, and log-probs at the rollout's temperature.

vLLM mixes the class into its own worker (`--worker-extension-cls`) and calls it by name, also over
HTTP. Nothing here is imported from vLLM before a worker runs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

EXTENSION = "rlkit.rollout.vllm.worker.RlkitWorker"
"""How vLLM finds the class."""
PROBE_ROWS = 4
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of as many bytes."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def checksum(tensor: Tensor) -> int:
    """The sum of a tensor's bit patterns as integers, modulo 2^64.

    It is exact, zeros add nothing, and the sum of parts is that of the whole, so that it is the
    same for weights that an engine packs, pads, reorders or transposes.
    """
    bits = tensor.detach().contiguous().view(BITS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64))


def wrapped(number: int) -> int:
    """The number modulo 2^64, as a signed integer."""
    return (number + 2**63) % 2**64 - 2**63


class Arrivals:
    """The checksums of weights as they come in, and of the parameters they should end up in.

    A parameter holds the weights of its own name, or those that the model says are packed into it
    (`packed`: {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}). It is compared if the engine keeps as
    many numbers of an ordinary dtype as came in; the rest is what an engine has quantized, split
    over devices, or packed in a form of its own.
    """

    def __init__(self, dtypes: Mapping[str, torch.dtype], packed: Mapping[str, list[str]]) -> None:
        self.dtypes = dtypes
        self.parts = {part: whole for whole, parts in packed.items() for part in parts}
        self.received: dict[str, int] = {}
        self.sources: dict[str, list[str]] = {}
        self.expected: dict[str, int] = {}
        self.numbers: dict[str, int] = {}

    def read(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same weights, noted on their way."""
        for name, tensor in weights:
            self.received[name] = checksum(tensor)
            place = self._place(name)
            if place is not None and self.dtypes[place] in FLOATS:
                held = checksum(tensor.to(self.dtypes[place]))
                self.sources.setdefault(place, []).append(name)
                self.expected[place] = wrapped(self.expected.get(place, 0) + held)
                self.numbers[place] = self.numbers.get(place, 0) + tensor.numel()
            yield name, tensor

    def _place(self, name: str) -> str | None:
        """The parameter that holds a weight."""
        words = [self.parts.get(word, word) for word in name.split(".")]
        found = [place for place in (name, ".".join(words)) if place in self.dtypes]
        return found[0] if found else None

    def report(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """What came in, which of it could be compared, and which of that is not what is held."""
        places = [
            place
            for place, number in self.numbers.items()
            if place in parameters
            and parameters[place].numel() >= number
            and parameters[place].dtype == self.dtypes[place]
        ]
        wrong = [p for p in places if checksum(parameters[p]) != self.expected[p]]
        return {
            "received": self.received,
            "compared": sorted(name for place in places for name in self.sources[place]),
            "different": sorted(name for place in wrong for name in self.sources[place]),
        }


class RlkitWorker:
    """The calls that rlkit makes on a vLLM worker."""

    model_runner: Any
    model_config: Any
    rlkit_scale: float | None = None
    """The model's original logit scale."""

    def rlkit_dtype(self) -> str:
        """The dtype the engine computes in."""
        return str(self.model_config.dtype).removeprefix("torch.")

    def rlkit_temperature(self, temperature: float) -> None:
        """Divide the model's logits by the temperature from now on.

        Requests are then sampled at temperature 1. So both the log-probs of sampled tokens and
        those of a scored prompt are at the rollout's temperature and before top_p and top_k.
        """
        processor = self.model_runner.get_model().logits_processor
        if self.rlkit_scale is None:
            self.rlkit_scale = float(processor.scale)
        processor.scale = self.rlkit_scale / temperature

    def rlkit_load(self, folder: str) -> dict[str, Any]:
        """Load the weights of a folder; see `rlkit_take`."""
        from safetensors import safe_open

        with safe_open(Path(folder, "model.safetensors"), framework="pt") as file:
            return self.rlkit_take((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def rlkit_take(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Load weights layer by layer; says which of them could be compared, and differ.

        vLLM's loaders cast each weight to the dtype of the parameter that holds it.
        """
        runner: Any = self
        model = self.model_runner.get_model()
        dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
        arrivals = Arrivals(dtypes, getattr(model, "packed_modules_mapping", {}))
        runner.reload_weights(weights_iterator=arrivals.read(weights))
        self.rlkit_rebuild_head()
        return arrivals.report(dict(model.named_parameters()))

    def rlkit_rebuild_head(self) -> None:
        """Pack the LM head again.

        On the CPU vLLM multiplies by a packed copy of it. A reload packs the layers it loaded, and
        a head that is tied to the embedding is not among them.
        """
        head = self.model_runner.get_model().lm_head
        head.quant_method.process_weights_after_loading(head)

    @torch.no_grad()
    def rlkit_stale_head(self) -> float:
        """How far the LM head's product is from one with its weights, over what rounding explains.

        For h W^T with rows w_v of K numbers, rounding explains eps |h w_v| of the result's dtype,
        plus float32's eps sqrt(K) |h| |w_v| for the order of the sum. Above 1 the packed copy is
        another head.
        """
        head = self.model_runner.get_model().lm_head
        layer: Any = importlib.import_module("vllm.model_executor.layers.vocab_parallel_embedding")
        if not isinstance(head.quant_method, layer.UnquantizedEmbeddingMethod):
            return 0.0
        weight = head.weight
        width = weight.shape[1]
        rows = torch.linspace(-1, 1, PROBE_ROWS * width, dtype=torch.float32)
        rows = rows.sin().view(PROBE_ROWS, -1).to(weight)
        expected = linear(rows, weight).float()
        lengths = rows.float().norm(dim=1)[:, None] * weight.norm(dim=1, dtype=torch.float32)
        order = torch.finfo(torch.float32).eps * width**0.5 * lengths
        explained = torch.finfo(weight.dtype).eps * expected.abs() + order
        found = (head.quant_method.apply(head, rows).float() - expected).abs()
        return float((found / explained.clamp(min=torch.finfo(torch.float32).tiny)).max())
