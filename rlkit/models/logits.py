"""The logits of tokens, a block of tokens x vocabulary at a time. Only torch operations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

EntropyMode = Literal["none", "value", "gradient"]
CHUNK_BYTES_CPU = 4 * 2**20
"""Of a block of float32 logits: it stays in cache, and its matrix products are large enough."""
CHUNK_BYTES = 256 * 2**20
"""The same on an accelerator, where a block should outweigh the launch of its kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """How hidden states h become logits: c tanh(s x / c) with the softcap c, s x without one.

    x = h W^T + b + sum of u v^T.
    """

    weight: Tensor
    """W [V, H]."""
    bias: Tensor | None = None
    """b [V]."""
    low_rank: Sequence[tuple[Tensor, Tensor]] = ()
    """Pairs of u [n, r] and v [V, r]."""
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is computed, and how."""

    scale: float
    softcap: float | None
    temperature: float
    entropy: EntropyMode
    elements: int
    """Of a block, at most."""
    recording: bool
    """Whether gradients are recorded."""
    rounded_to: torch.dtype | None
    """What the factors of products are rounded to."""

    @property
    def slope(self) -> float:
        """dz/dx where no softcap bends it."""
        return self.scale / self.temperature

    def factor(self, matrix: Tensor) -> Tensor:
        """A factor of a product. Only CUDA multiplies half precision with a float32 result."""
        rounded = matrix if self.rounded_to is None else matrix.to(self.rounded_to)
        return rounded if matrix.is_cuda else rounded.to(wide(rounded))


def wide(*tensors: Tensor) -> torch.dtype:
    """The dtype of sums."""
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def add_product(out: Tensor, a: Tensor, b: Tensor, kept: float = 1.0, times: float = 1.0) -> None:
    """out = kept * out + times * a b, summed in the dtype of `out`."""
    wider = {} if b.dtype == out.dtype else {"out_dtype": out.dtype}
    torch.addmm(out, a.to(b.dtype), b, beta=kept, alpha=times, out=out, **wider)


@dataclass(frozen=True, slots=True)
class Block:
    """Logits of some tokens and a part of the vocabulary; consumed by who reads them."""

    rows: slice
    columns: slice
    logits: Tensor
    bend: Tensor | None
    """With a softcap: dz/dx over the slope."""
    lefts: list[Tensor]
    rights: list[Tensor]
    place: Tensor
    """[rows, 1] the column of each token; another one, if that is not in this block."""
    there: Tensor
    """[rows] whether it is."""

    def own(self, values: Tensor, otherwise: Tensor) -> Tensor:
        """[rows] the values at each token's own column, where that is in this block."""
        return torch.where(self.there, values.gather(1, self.place).squeeze(1), otherwise)

    def add_own(self, values: Tensor, more: Tensor) -> None:
        """Add to the values at each token's own column."""
        here = values.gather(1, self.place) + torch.where(self.there, more, 0.0)[:, None]
        values.scatter_(1, self.place, here)


class Blocks:
    """The logits, a block at a time.

    The vocabulary is the outer loop: what is computed of a part of W is complete after a pass over
    the tokens.
    """

    def __init__(
        self, plan: Plan, ids: Tensor, bias: Tensor | None, factors: Sequence[Tensor]
    ) -> None:
        count = len(factors) // 2
        self.plan, self.ids, self.bias = plan, ids, bias
        self.lefts, self.rights = factors[:count], factors[count:]
        self.sums: dict[str, Any] = {"dtype": wide(*factors), "device": ids.device}
        """The dtype and device of sums."""
        self.tokens, self.vocabulary = ids.shape[0], self.rights[0].shape[0]
        self.height = max(1, min(self.tokens, math.isqrt(plan.elements)))
        self.width = min(self.vocabulary, max(1, plan.elements // self.height))

    def __iter__(self) -> Iterator[Block]:
        space = torch.empty(self.height * self.width, **self.sums)
        lefts = [self.plan.factor(left) for left in self.lefts]
        for columns in _slices(self.vocabulary, self.width):
            rights = [self.plan.factor(right[columns]) for right in self.rights]
            width = columns.stop - columns.start
            for rows in _slices(self.tokens, self.height):
                height = rows.stop - rows.start
                parts = [left[rows] for left in lefts]
                logits = space[: height * width].view(height, width)
                bend = self._fill(logits, columns, parts, rights)
                at = self.ids[rows] - columns.start
                place, there = at.clamp(0, width - 1)[:, None], (at >= 0) & (at < width)
                yield Block(rows, columns, logits, bend, parts, rights, place, there)

    def _fill(
        self, logits: Tensor, columns: slice, lefts: list[Tensor], rights: list[Tensor]
    ) -> Tensor | None:
        """Write the logits of a block; their bend, if they have a softcap."""
        plan = self.plan
        slope = plan.slope if plan.softcap is None else plan.scale / plan.softcap
        kept = 0.0
        if self.bias is not None:
            logits.copy_(self.bias[columns].expand_as(logits))
            kept = slope
        for left, right in zip(lefts, rights, strict=True):
            add_product(logits, left, right.t(), kept, slope)
            kept = 1.0
        if plan.softcap is None:
            return None
        bend = logits.tanh_().square().neg_().add_(1)
        logits.mul_(plan.softcap / plan.temperature)
        return bend


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
