"""How much of a draft is kept, and what that does to the distribution of a token."""

from __future__ import annotations

import torch
from torch import Tensor


def leading(keeps: Tensor) -> int:
    """How many of [T] bool are true before the first that is not."""
    return int(keeps.long().cumprod(0).sum())


def equal_prefix(drawn: Tensor, draft: Tensor) -> int:
    """How many tokens of a draft [T] are the policy's own draws [T] at the same places.

    With numbers that the policy does not depend on, the draws are samples of it, whatever the
    draft: the draft only says in advance where they may be. P(k or more are kept) = pi(draft[:k])
    if the numbers are also independent of the draft; no way to sample the policy independently of
    a draft can keep more of it.
    """
    return leading(drawn == draft)


def accepted_prefix(
    logp: Tensor, draft_logp: Tensor, uniform: Tensor, *, scale: float = 1.0, bias: float = 0.0
) -> int:
    """How many tokens of a draft the lenient rule accepts before its first rejection.

        log U <= s (Delta - b),   Delta = log pi - log mu

    `logp` is log pi [T], `draft_logp` log mu [T] under what sampled the draft, `uniform` [T] in
    [0, 1). Source: SPEC-RL (arXiv:2509.23232).
    """
    bound = scale * (logp.double() - draft_logp.double() - bias)
    return leading(uniform.double().log() <= bound)


def lenient_distribution(
    policy: Tensor, draft: Tensor, *, scale: float = 1.0, bias: float = 0.0
) -> Tensor:
    """What a token follows under the lenient rule, [V], from the policy's p and the draft's q.

        q a + (1 - sum q a) p,   a = min(1, (p e^-b / q)^s)

    It is not p, even at s = 1 and b = 0: there speculative decoding would draw what follows a
    rejection from the rest, (p - min(p, q)) / (1 - sum min(p, q)), and here it is drawn from p.
    """
    p, q = policy.double(), draft.double()
    accept = (scale * (p.log() - q.log() - bias)).clamp(max=0.0).exp()
    # a token that the draft never has needs no acceptance
    kept = torch.where(q > 0, q * accept, 0.0)
    return kept + (1 - kept.sum(-1, keepdim=True)) * p


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """sum |p - q| / 2 over the last dimension."""
    return (p.double() - q.double()).abs().sum(-1) / 2
