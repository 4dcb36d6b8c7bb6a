"""Attention over a packed row in which the responses to a prompt share its keys and values.

The row holds each distinct prompt once and then the responses, without padding. A token of a prompt
attends to the prompt up to itself, a token of a response to its prompt and to the response up to
itself, which is what it would see in a row of its own:

    row         p_1 p_2 p_3 | q_1 q_2 | a_1 a_2 | b_1 | c_1 c_2          a, b answer p; c answers q
    a_2 sees    p_1 p_2 p_3             a_1 a_2

Blocks of prompts of one length, and of responses to them, go through the attention function the
model has anyway, so that the work is the sum of the sequences' own and no mask of the whole row
exists. It takes the place of that function through transformers' `AttentionInterface`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rlkit.models.attention import attending_by, implementations

NAME = "rlkit_shared_prefix"
"""What the attention function is called in transformers."""
BASES = ("sdpa", "eager")
"""Attention functions that it can call: they take any mask."""

LARGE_MASK = 2**16
"""Above this size a mask costs more than queries in the prompt's place, for causal attention."""


@dataclass(frozen=True, slots=True)
class PromptBlock:
    """Prompts of one length, one after the other in the packed row."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """Where they end."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class ResponseBlock:
    """Responses to the prompts of one block, one after the other in the packed row."""

    start: int
    stop: int
    prompts: int
    """The number of the block of their prompts."""
    prompt: Tensor
    """[b] int64, the prompt of each response, counted in that block."""
    width: int
    """Tokens of the longest."""
    padded: Tensor | None
    """[b * width] int64, the place after `start` of each token once padded; None = no padding."""
    packed: Tensor | None
    """[stop - start] int64, where each token is once padded; None = no padding."""


class _Padded(torch.autograd.Function):
    """Tokens [n, ...] padded to rows of one length; what a pad holds is never read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        """x[padded]; `packed` says where each token went."""
        ctx.save_for_backward(packed)
        return x.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        """A token's gradient is that of its own place: pads have none."""
        return gradients[0].index_select(0, *ctx.saved_tensors), None, None


class _Packed(torch.autograd.Function):
    """The inverse of `_Padded`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor) -> Tensor:
        """x[packed]."""
        ctx.save_for_backward(packed)
        ctx.padded_to = len(x)
        return x.index_select(0, packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        """Zeros where padded."""
        (gradient,) = gradients
        blank = gradient.new_zeros(ctx.padded_to, *gradient.shape[1:])
        return blank.index_copy_(0, *ctx.saved_tensors, gradient), None


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The blocks of a packed row."""

    prompts: Sequence[PromptBlock]
    responses: Sequence[ResponseBlock]
    masks: dict[Any, Tensor] = field(default_factory=dict)
    """Masks that layers share."""

    def attend(
        self, attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, rules: Rules
    ) -> Tensor:
        """The outputs [L, heads, d] for queries, keys and values [L, heads, d] of the row.

        `attention` takes queries, keys and values [b, heads, length, d] and a mask, and returns
        [b, length, heads, d].
        """
        out: list[Tensor] = []
        cached: list[tuple[Tensor, Tensor]] = []
        for block in self.prompts:
            own = [_rows(x[block.start : block.stop], block.count) for x in (q, k, v)]
            cached.append((own[1], own[2]))
            mask = self._mask(q, block.length, block.length, rules)
            out.append(attention(*own, mask).flatten(0, 1))
        for responses in self.responses:
            found = self._responses(
                attention, responses, cached[responses.prompts], (q, k, v), rules
            )
            out.append(found)
        return torch.cat(out)

    def _responses(
        self,
        attention: Callable[..., Tensor],
        block: ResponseBlock,
        prompt: tuple[Tensor, Tensor],
        row: tuple[Tensor, Tensor, Tensor],
        rules: Rules,
    ) -> Tensor:
        """The outputs of a block of responses, [tokens, heads, d]."""
        count = len(block.prompt)
        own = [x[block.start : block.stop] for x in row]
        if block.padded is not None and block.packed is not None:
            own = [apply(_Padded, x, block.padded, block.packed) for x in own]
        q, k, v = (_rows(x, count) for x in own)
        before = [x.index_select(0, block.prompt) for x in prompt]
        length = before[0].shape[2]
        k, v = (torch.cat([p, x], 2) for p, x in zip(before, (k, v), strict=True))
        long = length <= block.width and block.width * (length + block.width) > LARGE_MASK
        if rules.causal and rules.fits(length + block.width) and long:
            # as in a row of its own: torch then needs no mask, and skips what none sees
            q = torch.cat([q.new_zeros(*q.shape[:2], length, q.shape[3]), q], 2)
            out = attention(q, k, v, None)[:, length:].flatten(0, 1)
        else:
            mask = self._mask(q, block.width, length + block.width, rules)
            out = attention(q, k, v, mask).flatten(0, 1)
        return out if block.packed is None else apply(_Packed, out, block.packed)

    def _mask(self, like: Tensor, queries: int, keys: int, rules: Rules) -> Tensor | None:
        """What the last `queries` of `keys` tokens see, [1, 1, queries, keys]; None = causal."""
        if rules.causal and queries == keys and rules.fits(keys):
            return None
        name = (queries, keys, rules)
        if name not in self.masks:
            at = torch.arange(keys - queries, keys, device=like.device)[:, None]
            other = torch.arange(keys, device=like.device)
            seen = other <= at
            if rules.window is not None:
                seen &= other > at - rules.window
            if not rules.causal:
                least = torch.finfo(like.dtype).min
                seen = torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, least)
            self.masks[name] = seen[None, None]
        return self.masks[name]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a layer's attention asks of masks."""

    causal: bool
    """Whether the function is causal by itself if it gets no mask, and takes masks of bool."""
    window: int | None
    """How many tokens, itself included, a token sees; None = all before it."""

    def fits(self, length: int) -> bool:
        """Whether no token of a sequence this long is outside the window."""
        return self.window is None or length <= self.window


def apply(function: type[torch.autograd.Function], *inputs: Tensor) -> Tensor:
    """A function's one output."""
    out: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return out


def _rows(x: Tensor, count: int) -> Tensor:
    """[count * length, heads, d] as [count, heads, length, d]."""
    return x.view(count, -1, *x.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Use:
    """A model in whose attention a packed row takes the place of a batch."""

    model: nn.Module
    base: str
    row: SharedPrefix

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Has the model attend over the row inside this context."""
        token = ACTIVE.set(self)
        try:
            with attending_by(self.model, NAME, attend):
                yield
        finally:
            ACTIVE.reset(token)


ACTIVE: ContextVar[Use | None] = ContextVar("shared_prefix", default=None)
"""What attention works on now; a layer that is computed again in the backward pass enters it."""
WINDOWS: ContextVar[list[int | None] | None] = ContextVar("windows", default=None)


@contextmanager
def watched(windows: list[int | None]) -> Generator[None]:
    """Notes the window that each layer asks for inside this context."""
    token = WINDOWS.set(windows)
    try:
        yield
    finally:
        WINDOWS.reset(token)


def base_of(model: nn.Module) -> str | None:
    """The attention function of a model, if the packed one can call it."""
    found = implementations(model)
    (name,) = found if len(found) == 1 else (None,)
    return name if name in BASES else None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function over the active packed row: [1, heads, L, d] each.

    Raises ValueError for a mask, which would be one of the whole row that the layer made itself.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    use = ACTIVE.get()
    assert use is not None, "this attention function is used inside a context of its own"
    if attention_mask is not None:
        raise ValueError("a layer makes a mask of its own")
    window = kwargs.get("sliding_window")
    if (windows := WINDOWS.get()) is not None:
        windows.append(window)
    eager = use.base == "eager"
    function: Any = (
        vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        if eager
        else ALL_ATTENTION_FUNCTIONS[use.base]
    )
    plain = not eager and kwargs.get("position_bias") is None

    def one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if plain and mask is not None and q.shape[1] > k.shape[1]:
            return grouped(q, k, v, mask, kwargs)
        out: Tensor = function(module, q, k, v, mask, **kwargs)[0]
        return out

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return use.row.attend(one, q, k, v, Rules(not eager, window))[None], None


def grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Attention of several query heads to each key head, without a copy of keys per query head.

    The queries of one key head are one sequence. Returns [b, length, heads, d].
    """
    heads, length = q.shape[1:3]
    repeats = heads // k.shape[1]
    together = q.reshape(len(q), k.shape[1], repeats * length, -1)
    found = nn.functional.scaled_dot_product_attention(
        together,
        k,
        v,
        attn_mask=mask.repeat(1, 1, repeats, 1),
        dropout_p=settings.get("dropout", 0.0),
        scale=settings.get("scaling"),
    )
    return found.view(len(q), heads, length, -1).transpose(1, 2)
