"""Log-probs and entropies of tokens from hidden states, without the logits of all of them at once.

A block of logits is computed in the forward pass, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlkit.models.logits import (
    CHUNK_BYTES,
    CHUNK_BYTES_CPU,
    Block,
    Blocks,
    EntropyMode,
    Plan,
    Projection,
    add_product,
)


def chunked_terms(
    hidden: Tensor,
    ids: Tensor,
    by: Projection,
    temperature: float = 1.0,
    entropy: EntropyMode = "none",
    chunk_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of each token and entropy (nats) of its distribution, [n] each.

    logp = z[id] - logsumexp z of the logits z of `hidden` [n, H], over the temperature. Values are
    float32, or float64 if an input is; so are all sums, and the products of half-precision
    factors. Under autocast, factors are rounded to its dtype. The entropy is zero if `entropy` is
    "none" and has a gradient if it is "gradient". First derivatives only. `chunk_bytes` is the
    size of a block in float32.
    """
    kind = hidden.device.type
    casting = torch.is_autocast_enabled(kind) and hidden.dtype != torch.float64
    budget = chunk_bytes or (CHUNK_BYTES_CPU if kind == "cpu" else CHUNK_BYTES)
    plan = Plan(
        scale=by.scale,
        softcap=by.softcap,
        temperature=temperature,
        entropy=entropy,
        elements=max(1, budget // 4),
        recording=torch.is_grad_enabled(),
        rounded_to=torch.get_autocast_dtype(kind) if casting else None,
    )
    lefts = hidden, *(u for u, _ in by.low_rank)
    rights = by.weight, *(v for _, v in by.low_rank)
    with torch.autocast(kind, enabled=False):
        logp, spread = _Terms.apply(plan, ids, by.bias, *lefts, *rights)  # type: ignore[no-untyped-call]
    return logp, spread


class _Terms(torch.autograd.Function):
    """All blocks, and their gradient.

    If no gradient of W, b or v is wanted, d logp / d h is a vector for each token, which the
    forward pass takes along: one product of matrices less than computing the logits again.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, ids: Tensor, bias: Tensor | None, *factors: Tensor) -> Any:
        count = len(factors) // 2
        wanted = [plan.recording and needed for needed in ctx.needs_input_grad]
        again = wanted[2] or any(wanted[3 + count :]) or plan.entropy == "gradient"
        blocks = Blocks(plan, ids, bias, factors)
        sums = _Sums(blocks, along=any(wanted) and not again)
        for block in blocks:
            sums.add(block)
        normalizer, logp, spread = sums.results()
        if any(wanted):
            kept = (normalizer, spread, ids, bias, *factors) if again else sums.slopes()
            ctx.save_for_backward(*kept)
        ctx.plan, ctx.again = plan, again
        ctx.set_materialize_grads(False)
        if plan.entropy != "gradient":
            ctx.mark_non_differentiable(spread)
        return logp, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor | None, up_spread: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        needed = ctx.needs_input_grad
        if not ctx.again:
            of_lefts = [_scaled(slope, up) for slope in ctx.saved_tensors]
            return (None, None, None, *of_lefts, *[None] * (len(needed) - 3 - len(of_lefts)))
        normalizer, spread, ids, bias, *factors = ctx.saved_tensors
        up = torch.zeros_like(normalizer) if up is None else up
        blocks = Blocks(ctx.plan, ids, bias, factors)
        gradients = _Gradients(blocks, needed[2:])
        for block in blocks:
            rows = block.rows
            of_spread = None if up_spread is None else up_spread[rows]
            logp = block.logits.sub_(normalizer[rows, None])
            slopes = _slopes(logp, spread[rows], up[rows], of_spread)
            block.add_own(slopes, up[rows])
            gradients.add(block, slopes if block.bend is None else slopes.mul_(block.bend))
        return (None, None, *gradients.results())


def _scaled(slope: Tensor | None, up: Tensor | None) -> Tensor | None:
    return None if slope is None or up is None else (up[:, None] * slope)


def _slopes(logp: Tensor, spread: Tensor, up: Tensor, up_spread: Tensor | None) -> Tensor:
    """d loss / dz in the place of a block of log-probs, less that of each token's own logit.

    -p (g + g' (log p + S)), with g and g' the gradients of the log-prob and of the entropy S.
    """
    if up_spread is None:
        return logp.exp_().mul_(-up[:, None])
    p = logp.exp()
    shift = up + up_spread * spread
    return logp.mul_(-up_spread[:, None]).sub_(shift[:, None]).mul_(p)


class _Sums:
    """What the forward pass keeps of each token, relative to its largest logit so far."""

    def __init__(self, blocks: Blocks, *, along: bool) -> None:
        n, like = blocks.tokens, blocks.sums
        self.blocks = blocks
        self.largest = torch.full((n,), torch.finfo(like["dtype"]).min, **like)
        self.total, self.weighted, self.own = torch.zeros(3, n, **like)
        self.bend = torch.ones_like(self.own)
        """Of each token's own logit."""
        kept = blocks.lefts if along else ()
        self.means = [torch.zeros(left.shape, **like) for left in kept]
        """Sums over the vocabulary of p and the right factors: [n, H] or [n, r]."""

    def add(self, block: Block) -> None:
        """Take in a block."""
        rows, logits = block.rows, block.logits
        self.own[rows] = block.own(logits, self.own[rows])
        before = self.largest[rows]
        largest = torch.maximum(before, logits.amax(1))
        step = before - largest
        fading = step.exp()
        logits.sub_(largest[:, None])
        if self.blocks.plan.entropy == "none":
            p = logits.exp_()
        else:
            p = logits.exp()
            moved = self.weighted[rows] + self.total[rows] * step
            self.weighted[rows] = moved * fading + logits.mul_(p).sum(1)
        self.total[rows] = self.total[rows] * fading + p.sum(1)
        self.largest[rows] = largest
        if self.means and block.bend is not None:
            self.bend[rows] = block.own(block.bend, self.bend[rows])
            p.mul_(block.bend)
        for mean, right in zip(self.means, block.rights, strict=False):
            add_product(mean[rows].mul_(fading[:, None]), p, right)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """The normalizer, log-prob and entropy of each token."""
        log_total = self.total.log()
        spread = torch.zeros_like(log_total)
        if self.blocks.plan.entropy != "none":
            spread = log_total - self.weighted / self.total
        return self.largest + log_total, self.own - self.largest - log_total, spread

    def slopes(self) -> list[Tensor]:
        """d logp / d left of each left factor; called once."""
        plan, ids = self.blocks.plan, self.blocks.ids
        for mean, right in zip(self.means, self.blocks.rights, strict=True):
            own = plan.factor(right[ids]).to(mean.dtype) * self.bend[:, None]
            mean.div_(self.total[:, None]).neg_().add_(own).mul_(plan.slope)
        return self.means


class _Gradients:
    """What the backward pass adds up, in the dtype of sums.

    For half-precision weights, that is done a part of the vocabulary at a time.
    """

    def __init__(self, blocks: Blocks, needed: Sequence[bool]) -> None:
        self.blocks = blocks
        count, like = len(blocks.lefts), blocks.sums
        with_bias = needed[0] and blocks.bias is not None
        self.bias = torch.zeros(blocks.vocabulary, **like) if with_bias else None
        self.lefts = [
            torch.zeros(left.shape, **like) if need else None
            for left, need in zip(blocks.lefts, needed[1 : 1 + count], strict=True)
        ]
        self.rights = [
            torch.zeros_like(right) if need else None
            for right, need in zip(blocks.rights, needed[1 + count :], strict=True)
        ]
        self.parts: list[Tensor] = []

    def add(self, block: Block, slopes: Tensor) -> None:
        """Take in d loss / dz of a block, over the slope."""
        slope, columns = self.blocks.plan.slope, block.columns
        if self.bias is not None:
            self.bias[columns] += slope * slopes.sum(0)
        for total, right in zip(self.lefts, block.rights, strict=True):
            if total is not None:
                add_product(total[block.rows], slopes, right, times=slope)
        totals = [None if total is None else total[columns] for total in self.rights]
        if block.rows.start == 0:
            self.parts = [self._part(total) for total in totals if total is not None]
        lefts = [x for x, total in zip(block.lefts, totals, strict=True) if total is not None]
        for part, left in zip(self.parts, lefts, strict=True):
            add_product(part, slopes.t(), left, times=slope)
        if block.rows.stop == self.blocks.tokens:
            kept = [total for total in totals if total is not None]
            for total, part in zip(kept, self.parts, strict=True):
                total.copy_(part) if total is not part else None

    def _part(self, total: Tensor) -> Tensor:
        """Where the gradient of a part of the vocabulary is summed."""
        wide = self.blocks.sums["dtype"]
        return total if total.dtype == wide else torch.zeros_like(total, dtype=wide)

    def results(self) -> tuple[Tensor | None, ...]:
        """The gradients of b, of the left and of the right factors."""
        return self.bias, *self.lefts, *self.rights
