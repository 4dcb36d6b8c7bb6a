"""One token per row of logits: its log-prob, and the inverse CDF at one uniform number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KEPT = "kept_logmass"
"""The key of a response's extras under top_p or top_k: log of the mass kept, [T]."""
BLOCK = 256
"""Tokens per block of the two-level search."""


def truncate(logp: Tensor, top_p: float, top_k: int) -> Tensor:
    """Log-probs [b, V] with the tokens outside top-k and outside the nucleus set to -inf.

    The nucleus is the shortest prefix of the tokens, by decreasing probability, whose mass reaches
    top_p; it is taken after top-k, and always holds the most probable token.
    """
    if top_k:
        kept = logp.topk(min(top_k, logp.shape[-1])).values[:, -1:]
        logp = logp.masked_fill(logp < kept, -torch.inf)
    if top_p < 1:
        ordered, order = torch.sort(logp, dim=-1, descending=True, stable=True)
        mass = (ordered - ordered.logsumexp(-1, keepdim=True)).exp()
        outside = mass.cumsum(-1) - mass >= top_p
        logp = logp.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return logp


@dataclass(frozen=True, slots=True)
class Masses:
    """exp(z - max z) of each row z of [b, V], in blocks of consecutive tokens.

    What a row gets depends on that row alone: a block is summed in one order, whatever the batch.
    """

    each: Tensor
    """[b, blocks, min(BLOCK, V)] float32; the last block ends with zeros"""
    cdf: Tensor
    """[b, blocks] float64, summed up to the end of each block"""
    largest: Tensor
    """[b, 1] float32, max z"""
    size: int
    """V"""

    @staticmethod
    def of(logits: Tensor) -> Masses:
        """Of unnormalized log-probs [b, V] float32; -inf = no mass."""
        rows, size = logits.shape
        width = min(BLOCK, size)
        blocks = -(-size // width)
        largest = logits.amax(-1, keepdim=True)
        each = logits.new_empty(rows, blocks * width)
        each[:, size:] = 0
        torch.sub(logits, largest, out=each[:, :size])
        each[:, :size].exp_()
        each = each.view(rows, blocks, width)
        return Masses(each, each.sum(-1).double().cumsum(-1), largest, size)

    def logsumexp(self) -> Tensor:
        """log sum exp z [b, 1], float32."""
        return self.largest + self.cdf[:, -1:].log().float()

    def pick(self, uniform: Tensor) -> Tensor:
        """Invert the CDF of each row at `uniform` [b] in [0, 1): ids [b].

        First the block is found, then the token in it. A token without mass is never picked.
        """
        block, share = _first_above(self.cdf, uniform.to(self.cdf.device, torch.float64)[:, None])
        index = block[..., None].expand(-1, 1, self.each.shape[-1])
        place, _ = _first_above(self.each.gather(1, index).squeeze(1).double().cumsum(-1), share)
        token = block * self.each.shape[-1] + place
        return token.squeeze(-1).clamp(max=self.size - 1)


def _first_above(cdf: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row of a CDF [b, n] first exceeds this share [b, 1] of its total, [b, 1].

    Also the share of the step found there that lies below. A share of 1 counts as the largest
    number below the total, so that a step always is found, and one above zero.
    """
    total = cdf[:, -1:]
    target = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cdf, target, right=True).clamp(max=cdf.shape[-1] - 1)
    before = torch.where(place > 0, cdf.gather(-1, (place - 1).clamp(min=0)), 0.0)
    return place, (target - before) / (cdf.gather(-1, place) - before)


@dataclass(frozen=True, slots=True)
class Choice:
    """A token per row, [b] each."""

    token: Tensor
    logp: Tensor
    """Before any truncation, float32."""
    kept: Tensor | None
    """Under truncation: log of the probability mass kept."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Chooses tokens at a temperature, under top_p and top_k, or the most probable ones."""

    temperature: float
    top_p: float
    top_k: int
    greedy: bool

    @property
    def truncates(self) -> bool:
        """Whether some tokens cannot be sampled."""
        return not self.greedy and (self.top_p < 1 or self.top_k > 0)

    def __call__(self, logits: Tensor, uniform: Tensor) -> Choice:
        """One token per row of logits [b, V]: the inverse CDF at `uniform` [b]."""
        scaled, kept = logits.float(), None
        if self.temperature != 1.0:
            scaled = scaled / self.temperature
        masses = Masses.of(scaled)
        normalizer = masses.logsumexp()
        if self.greedy:
            token = scaled.argmax(-1)
        elif self.truncates:
            allowed = truncate(scaled - normalizer, self.top_p, self.top_k)
            masses = Masses.of(allowed)
            token, kept = masses.pick(uniform), masses.logsumexp().squeeze(-1)
        else:
            token = masses.pick(uniform)
        logp = (scaled.gather(-1, token[:, None]) - normalizer).squeeze(-1)
        return Choice(token, logp, kept)
