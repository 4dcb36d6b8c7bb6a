"""Keys and values of a batch that decodes: each prompt's once, for all of its responses.

softmax(q [K_prompt, K_own]^T) [V_prompt; V_own] is computed from two products of each kind. The
queries of all responses to a prompt are one matrix, so the prompt's keys and values are read once
per token rather than once per response, and none are copied as responses grow.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from rlkit.models.attention import attending_by
from rlkit.rollout.grid import Grid

NAME = "rlkit_shared_prompts"
"""Of the attention function. No mask function has this name, so models make no mask."""
FIRST_ROOM = 64
"""Own tokens there is room for at first; the room doubles when it is full."""
HARMLESS = {
    "position_ids",
    "use_cache",
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_router_logits",
}
"""What models tell attention functions that changes nothing for one new token per row."""


class NotShareable(Exception):
    """The attention of a model is not of the kind that is computed here."""


class SharedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # an untyped hook
    """One layer's keys and values: [R * kv, P, d] of the prompts, [R, kv, n, t, d] of responses.

    With a sliding window w, a token sees the last w tokens, itself included.
    """

    def __init__(self, layer: DynamicLayer, grid: Grid, padding: Tensor | None, room: int) -> None:
        """From a forward over left-padded prompts; `padding` [R, 1, P] is 0 or -inf."""
        super().__init__()  # type: ignore[no-untyped-call]
        if layer.keys is None or layer.values is None or layer.keys.ndim != 4:
            raise NotShareable("a cache without keys and values")
        self.window: int | None = getattr(layer, "sliding_window", None)
        self.heads, self.width = layer.keys.shape[1:3]
        self.grid, self.most, self.length = grid, room, 0
        self.prompt = [x.contiguous().flatten(0, 1) for x in (layer.keys, layer.values)]
        self.padding = None
        if padding is not None:
            bias = padding[:, :, padding.shape[2] - self.width :].to(layer.keys.dtype)
            self.padding = bias.repeat_interleave(self.heads, 0)  # [R * kv, 1, P]
        first = min(room, FIRST_ROOM)
        self.own = [
            x.new_empty(grid.requests, self.heads, grid.places, first, x.shape[-1])
            for x in self.prompt
        ]
        self.newest: Tensor | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: it begins with the prompts."""

    def get_seq_length(self) -> int:
        """Tokens of a row, with padding."""
        return self.width + self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys a mask would have, and the first one's position; no mask is made."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values [b, kv, 1, d] of a new token; these alone are returned."""
        if self.length == self.own[0].shape[3]:
            self.own = [self._with_room(x, min(2 * self.length, self.most)) for x in self.own]
        for own, new in zip(self.own, (key_states, value_states), strict=True):
            self.grid.write(own[:, :, :, self.length], new[:, :, 0])
        self.length += 1
        self.newest = key_states
        return key_states, value_states

    def _with_room(self, own: Tensor, room: int) -> Tensor:
        larger = own.new_empty(*own.shape[:3], room, own.shape[4])
        larger[:, :, :, : self.length] = own[:, :, :, : self.length]
        return larger

    def move(self, grid: Grid, requests: Tensor, row: Tensor, column: Tensor) -> None:
        """Take a smaller grid [R', n']: the requests [R'] at these rows of the one before.

        Its places were those at `row`, `column` [R', n'].
        """
        self.grid = grid

        def moved(x: Tensor) -> Tensor:
            new = x.new_empty(grid.requests, self.heads, grid.places, *x.shape[3:])
            used = x[:, :, :, : self.length]
            new[:, :, :, : self.length] = used[row, :, column].transpose(1, 2)
            return new

        self.own = [moved(x) for x in self.own]

        def chosen(x: Tensor) -> Tensor:
            return x.view(-1, self.heads, *x.shape[1:])[requests].flatten(0, 1)

        if len(requests) * self.heads < len(self.prompt[0]):
            self.prompt = [chosen(x) for x in self.prompt]
            self.padding = None if self.padding is None else chosen(self.padding)

    def attend(self, query: Tensor, scaling: float, window: int | None) -> Tensor:
        """The attention [b, 1, heads, d] of the newest tokens, from queries [b, heads, 1, d]."""
        if self.window is not None and self.window != window:
            raise NotShareable(f"a cache of {self.window} tokens under a window of {window}")
        first, own_first = 0, 0
        if window is not None:
            own_first = max(0, self.length - window)
            first = max(0, self.width - max(0, window - self.length))
        q = query.reshape(len(query), self.heads, -1, query.shape[-1])
        q = self.grid.spread(q)  # [R, kv, n, rep, d]
        shape, (repeats, size) = q.shape[:3], q.shape[3:]
        together, apart = q.reshape(len(self.prompt[0]), -1, size), q.reshape(-1, repeats, size)
        keys, values = (x[:, first:] for x in self.prompt)
        own_keys, own_values = (x.flatten(0, 2)[:, own_first : self.length] for x in self.own)
        bias = None if self.padding is None else self.padding[:, :, first:]
        seen = _products(together, keys, scaling, bias)  # [R * kv, n * rep, P]
        own = _products(apart, own_keys, scaling, None)  # [R * kv * n, rep, t]
        scores = torch.cat([seen.view(*own.shape[:2], -1), own], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
        shared = weights.view(*together.shape[:2], -1)[:, :, : keys.shape[1]]
        out = torch.bmm(shared, values).view(*apart.shape[:2], -1)
        out = torch.baddbmm(out, weights[:, :, keys.shape[1] :], own_values)
        found = self.grid.gather(out.view(*shape, repeats, -1))  # [b, kv, rep, d]
        return found.flatten(1, 2).unsqueeze(1)


def _products(queries: Tensor, keys: Tensor, scaling: float, bias: Tensor | None) -> Tensor:
    """scaling * queries [B, m, d] keys [B, s, d]^T + bias [B, 1, s]."""
    start = queries.new_empty(1, 1, 1) if bias is None else bias
    beta = 0 if bias is None else 1
    return torch.baddbmm(start, queries, keys.transpose(1, 2), beta=beta, alpha=scaling)


class SharedPrompts(Cache):
    """The cache of a batch whose responses share their prompts."""

    def __init__(
        self, cache: object, request: Tensor, mask: Tensor, room: int, device: torch.device
    ) -> None:
        """From the cache of the prompts, whose mask is [R, P], for responses to `request` [b].

        Raises NotShareable for a cache that is not only of keys and values per head.
        """
        known = (DynamicLayer, DynamicSlidingWindowLayer)
        if type(cache) is not DynamicCache or any(type(x) not in known for x in cache.layers):
            raise NotShareable(f"a {type(cache).__name__}")
        self.device, self.grid = device, Grid.of(request, device)
        padding = None
        if not bool(mask.all()):
            padding = torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask == 0, -torch.inf)
            padding = padding[:, None]
        self.shared = [
            SharedLayer(x, self.grid, padding, room)
            for x in cache.layers
            if isinstance(x, DynamicLayer)
        ]
        super().__init__(layers=[*self.shared])
        self.latest: SharedLayer | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values."""
        self.latest = self.shared[layer_idx]
        return self.latest.update(key_states, value_states)

    def keep(self, chosen: Tensor) -> None:
        """Keep the responses at `chosen` [b'], ascending.

        Those that leave are holes at first, which cost a share of the attention but no copy. Once
        a grid of half the places is enough, the rest move there.
        """
        before = self.grid.keep(chosen, self.device)
        left, request = torch.unique(before.request, return_inverse=True)
        grid = Grid.of(request, self.device)
        if 2 * grid.requests * grid.places > before.requests * before.places:
            self.grid = before
            for layer in self.shared:
                layer.grid = before
            return
        row, column = torch.zeros(2, grid.requests, grid.places, dtype=torch.int64)
        row[grid.request, grid.place], column[grid.request, grid.place] = (
            before.request,
            before.place,
        )
        self.grid = grid
        places = left.to(self.device), row.to(self.device), column.to(self.device)
        for layer in self.shared:
            layer.move(grid, *places)


_CACHE: ContextVar[SharedPrompts] = ContextVar("rlkit_shared_prompts")


def attention(  # noqa: PLR0913, PLR0917  # the signature is transformers'
    module: object,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What models call in place of their own attention."""
    layer = _CACHE.get().latest
    unknown = [k for k, x in kwargs.items() if k not in HARMLESS and x is not None]
    if unknown or attention_mask is not None or dropout or query.shape[2] != 1:
        raise NotShareable(f"attention with {', '.join(unknown) or 'a mask or dropout'}")
    if layer is None or key is not layer.newest:
        raise NotShareable("keys that are not those of the cache")
    scale = float(query.shape[-1]) ** -0.5 if scaling is None else scaling
    return layer.attend(query, scale, sliding_window), None


@contextmanager
def attending(model: Any, cache: SharedPrompts) -> Generator[None]:
    """Inside this context the model's attention is `attention` over a cache.

    Raises NotShareable if the model does not look its attention function up.
    """
    if not model._supports_attention_backend:
        raise NotShareable(f"a {type(model).__name__}")
    token = _CACHE.set(cache)
    try:
        with attending_by(model, NAME, attention):
            yield
    finally:
        _CACHE.reset(token)
