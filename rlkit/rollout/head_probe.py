"""The check before the first step whether log-probs without full logits are those with them."""

from __future__ import annotations

import copy

import torch

from rlkit.interfaces import Tokens
from rlkit.models.head import Head
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.rollout.precision import trainer_eps
from rlkit.rollout.probe import ordinary_tokens

LENGTHS = (3, 5)
"""Tokens of the prompts, and of the responses in the other order."""
TOLERANCE = 1e-4
"""In float32: far above rounding and far below what a wrong formula changes."""


def find_head(policy: Policy, seed: int) -> Head | None:
    """The head with which the log-probs of a few random tokens are those of full logits, if any.

    Every rank must call it.
    """
    with policy.full_weights():
        head = Head.of(policy.model)
        return head if head is not None and agrees(policy, head, seed) else None


@torch.no_grad()
def agrees(policy: Policy, head: Head, seed: int) -> bool:
    """Whether log-probs with the head are those of full logits z, up to rounding.

    In half precision each of at most 4 operations (the product, a scale or the softcap) rounds z
    by eps/2 of it, and a log-prob is a difference of two numbers with these errors:
    4 eps max |z|. In float32 0.0001 (1 + max |z|).
    """
    rng, allowed = stream_rng(seed, "probe/head"), ordinary_tokens(policy)
    prompts, responses = (
        [torch.from_numpy(rng.choice(allowed, size)) for size in sizes]
        for sizes in (LENGTHS, LENGTHS[::-1])
    )
    tokens = Tokens.of(prompts, responses)
    plain, other = copy.copy(policy), copy.copy(policy)
    plain.head, other.head = None, head
    expected = plain.logp(tokens)
    largest = _largest_logit(plain, tokens)
    bound = TOLERANCE + max(TOLERANCE, 4 * trainer_eps(policy)) * largest
    return bool((other.logp(tokens) - expected).abs().max() <= bound)


def _largest_logit(policy: Policy, tokens: Tokens) -> float:
    """The largest |z| at the policy's temperature."""
    inputs = tokens.model_inputs(policy.device)
    with policy.autocasting():
        logits = policy.model(**inputs, use_cache=False).logits
    return float(logits.float().abs().max()) / policy.temperature
