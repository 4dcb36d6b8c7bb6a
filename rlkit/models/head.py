"""The output layer of a causal language model, computed for chosen tokens without full logits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlkit.interfaces import Tokens
from rlkit.models.logits import EntropyMode, Projection
from rlkit.models.logprob import chunked_terms

LARGE = 2.0**100
"""A logit at which every softcap gives its bound."""
TOLERANCE = 1e-5
"""Relative, between what an architecture makes of logits and the formula for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which log-probs a forward is for."""

    positions: Tensor
    """[n] int64 into the B * `last` positions; may repeat."""
    ids: Tensor
    """[n] int64: the token after each."""
    last: int
    """How many positions of each row count, from its end."""
    temperature: float = 1.0
    entropy: EntropyMode = "none"


@dataclass(slots=True)
class Box:
    """Where a forward leaves log-probs and entropies, [n] each."""

    terms: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def after(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What is inside, depending on the model's output.

        Modules around the model (FSDP) prepare for the backward pass when a gradient comes to
        that; it is zero.
        """
        ((logp, spread),) = self.terms
        return logp + 0.0 * logits.sum().to(logp.dtype), spread


@dataclass(frozen=True, slots=True)
class Head:
    """What a model makes of its output layer's x = h W^T + b: c tanh(s x / c), or s x.

    Gemma has a softcap c, Cohere and Granite a scale s.
    """

    scale: float
    softcap: float | None

    @staticmethod
    @torch.no_grad()
    def of(model: Any) -> Head | None:
        """The head of a model, or None.

        None if its output layer is quantized or not linear, or if its logits are no such function.
        Measured, with numbers in their place: configurations say it in many ways. Every rank must
        call it, with full weights.
        """
        layer = model.get_output_embeddings()
        if layer is None or not _is_readable(layer):
            return None
        count = _linear(layer).weight.shape[0]
        wide = torch.float32 if model.device.type == "mps" else torch.float64
        given = torch.linspace(-1, 1, count, dtype=wide, device=model.device)
        given = torch.stack([1e-3 * given, LARGE * given.sign(), given, 30 * given])[:, None]
        calls = []

        def forward(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            calls.append(hidden)
            return given

        tokens = Tokens.of([torch.tensor([1])] * 4, [torch.tensor([1])] * 4)
        inputs = {name: value[:, :1] for name, value in tokens.model_inputs(model.device).items()}
        with forward_of(layer, forward):
            found = model(**inputs, use_cache=False, logits_to_keep=1).logits
        return _fitted(given, found) if len(calls) == 1 else None

    @contextmanager
    def computing(self, model: Any, wanted: Wanted) -> Generator[Box]:
        """Has a forward of the model put what is wanted into the box.

        Its output has logits of a single column then. The weights are read when the layer is
        called, since hooks may only then have brought them.
        """
        layer, box = model.get_output_embeddings(), Box()

        def forward(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            kept = hidden[:, -wanted.last :]
            rows = kept.flatten(0, 1).index_select(0, wanted.positions.to(hidden.device))
            by = projection(layer, rows, self)
            ids = wanted.ids.to(hidden.device)
            found = chunked_terms(rows, ids, by, wanted.temperature, wanted.entropy)
            box.terms.append(found)
            zero = (0.0 * found[0].sum()).to(hidden.dtype)
            return hidden.new_zeros(*hidden.shape[:-1], 1) + zero

        with forward_of(layer, forward):
            yield box


def _fitted(given: Tensor, found: Tensor) -> Head | None:
    """The head that makes the found logits of given ones, if there is one."""
    if found.shape != given.shape:
        return None
    digits = 12 if found.dtype == torch.float64 else 7
    given, found = given.double(), found.double()
    bound, small = float(found[1, 0, -1]), float(found[0, 0, -1])
    if bound > small * LARGE:  # 1000 times as large, if it is linear
        head = Head(_rounded(bound / LARGE, digits), None)
    elif bound > 0:
        ratio = torch.tensor(small / bound, dtype=torch.float64)
        scale = 1e3 * bound * float(ratio.atanh())
        head = Head(_rounded(scale, digits), _rounded(bound, digits))
    else:
        return None
    expected = head.scale * given
    if head.softcap is not None:
        expected = head.softcap * (expected / head.softcap).tanh()
    same = torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * abs(small))
    return head if same else None


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


@contextmanager
def forward_of(layer: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """Has a layer compute something else inside this context."""
    own = vars(layer)
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        own.pop("forward")
        if before is not None:
            own["forward"] = before


def _peft(name: str) -> type[Any] | tuple[()]:
    """A class of peft, if that has been imported: without it no layer is of that class."""
    places = {"Linear": "peft.tuners.lora.layer", "ModulesToSaveWrapper": "peft.utils.other"}
    module = sys.modules.get(places[name])
    return () if module is None else cast("type[Any]", getattr(module, name))


def _active(layer: Any) -> Any:
    """The layer that peft's wrapper of layers to save calls, or the layer itself."""
    if not isinstance(layer, _peft("ModulesToSaveWrapper")):
        return layer
    off = layer.disable_adapters or not layer.active_adapters
    return layer.original_module if off else layer.modules_to_save[layer.active_adapters[0]]


def _linear(layer: Any) -> Any:
    """The layer with the weights."""
    layer = _active(layer)
    return layer.base_layer if isinstance(layer, _peft("Linear")) else layer


def _is_readable(layer: Any) -> bool:
    """Whether a layer is linear, perhaps with plain low-rank adapters, and not quantized."""
    inner, linear = _active(layer), _linear(layer)
    adapted = inner is not linear
    if adapted and (type(inner) is not _peft("Linear") or inner.lora_variant):
        return False
    if adapted and any(b.bias is not None for b in inner.lora_B.values()):
        return False
    plain = isinstance(linear, nn.Linear) and type(linear).forward is nn.Linear.forward
    return plain and linear.weight.is_floating_point() and linear.weight.element_size() > 1


def projection(layer: Any, hidden: Tensor, head: Head) -> Projection:
    """How a layer makes logits of hidden states [n, H], with its weights as they now are."""
    inner, linear = _active(layer), _linear(layer)
    pairs = []
    if inner is not linear and not inner.disable_adapters and not inner.merged:
        for name in (name for name in inner.active_adapters if name in inner.lora_A):
            a, b = inner.lora_A[name], inner.lora_B[name]
            dropped = inner.lora_dropout[name](hidden.to(a.weight.dtype))
            pairs.append((a(dropped) * inner.scaling[name], b.weight))
    return Projection(
        weight=linear.weight,
        bias=linear.bias,
        low_rank=tuple(pairs),
        scale=head.scale,
        softcap=head.softcap,
    )
