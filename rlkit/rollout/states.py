"""What a model carries from one forward to the next: keys and values, recurrent states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlkit.errors import UserError

ATTENTION, RECURRENT = "past_key_values", "cache_params"
"""Under which name an output has the cache and the next forward takes it; the second one is that of
models without attention."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A model's own cache after a forward of `rows` sequences."""

    model: object
    name: str
    cache: Any
    rows: int

    @staticmethod
    def of(model: object, output: Any, rows: int) -> Carried:
        """What an output carries. Raises UserError if the model gives no cache."""
        for name in (ATTENTION, RECURRENT):
            if output.get(name) is not None:
                return Carried(model, name, output[name], rows)
        raise refusal(model, "it gives no cache")

    def inputs(self, mask: Tensor) -> dict[str, Any]:
        """What the next forward of one token per row takes beside the token; `mask` is [rows, T].

        Recurrent states hold nothing of the padding, and a model without attention would take the
        mask of the whole sequence for one of the new token.
        """
        inputs = {self.name: self.cache, "use_cache": True}
        if self.name == ATTENTION:
            inputs |= {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1}
        return inputs

    def select(self, index: Tensor) -> Carried:
        """The rows at `index` [b] instead, which may repeat. The cache is changed in place.

        The first dimension of every state in a cache counts the sequences: keys and values, whole,
        compressed or of a window, convolution and recurrent states. Positions, which are integers,
        have them in the last but one. What has fewer than two dimensions is of no sequence. Raises
        UserError for a cache of another form.
        """

        def chosen(state: Tensor) -> Tensor:
            if state.ndim < 2:
                return state
            at = 0 if state.is_floating_point() or state.is_complex() else state.ndim - 2
            if state.shape[at] != self.rows:
                raise refusal(self.model, f"its cache has a state of shape {list(state.shape)}")
            return state.index_select(at, index.to(state.device))

        return Carried(self.model, self.name, _replaced(self.cache, chosen, set()), len(index))


def refusal(model: object, reason: str) -> UserError:
    """The error of a model that this engine cannot generate with."""
    return UserError(
        f"rollout=hf cannot generate with a {type(model).__name__}: {reason}; use rollout=vllm or "
        "another model"
    )


def _replaced(value: Any, change: Callable[[Tensor], Tensor], seen: set[int]) -> Any:
    """A cache with every tensor in it changed: itself, unless it is a tensor or a tuple."""
    from transformers.cache_utils import (
        Cache,
        CacheLayerMixin,
        LinearAttentionCacheLayerMixin,
    )

    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_replaced(item, change, seen) for item in value)
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, list):
        value[:] = [_replaced(item, change, seen) for item in value]
    objects = (Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin)
    items = vars(value) if isinstance(value, objects) else value
    if isinstance(items, dict):
        items.update({key: _replaced(item, change, seen) for key, item in items.items()})
    return value
