"""In which dtype an engine computes, and how far rounding alone may move its log-probs."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy

TOLERANCE_FLOAT32 = 1e-3
TF32_EPS = 2.0**-10
"""Of a factor in TF32, which has 10 bits of fraction."""
DRAWS = 4
MARGIN = 3.0


def trainer_dtype(policy: Policy) -> torch.dtype:
    """What the trainer's matrix products are computed in."""
    return policy.autocast or policy.model.dtype


def trainer_eps(policy: Policy) -> float:
    """Of the factors of the trainer's matrix products."""
    own: float = torch.finfo(trainer_dtype(policy)).eps
    return max(own, TF32_EPS) if policy.uses_tf32 else own


def engine_dtype(policy: Policy, asked: str | None) -> torch.dtype:
    """The dtype of an engine on the policy's device: `rollout.dtype` or its default."""
    if asked is not None:
        found: torch.dtype = getattr(torch, asked)
        return found
    halves = torch.bfloat16 in (policy.model.dtype, policy.autocast)
    return torch.bfloat16 if halves and policy.device.type == "cuda" else policy.model.dtype


def rounding_bound(policy: Policy, tokens: Tokens, engine: torch.dtype) -> float:
    """How far, in nats, rounding may move the log-probs of tokens between trainer and engine.

    0.001 if both compute in float32 without TF32. Otherwise it is measured (Monte Carlo arithmetic,
    Parker 1997): the output of every module is multiplied by 1 + eps u, u uniform in [-1/2, 1/2]
    for each number and eps that of the coarser side, which is what storing it in that dtype does,
    or rounding it to TF32 for the next product. The bound is MARGIN times the largest change of a
    log-prob in DRAWS such forwards, so it follows from the model's depth and the size of its
    logits. Our choice.
    """
    eps = max(trainer_eps(policy), torch.finfo(engine).eps)
    if eps <= torch.finfo(torch.float32).eps:
        return TOLERANCE_FLOAT32
    policy = copy.copy(policy)
    policy.head = None  # full logits, which the engine stores in its dtype
    clean = policy.logp(tokens)
    generator = torch.Generator().manual_seed(0)
    with _rounding(policy.model, eps, generator):
        changes = [float((policy.logp(tokens) - clean).abs().max()) for _ in range(DRAWS)]
    return max(TOLERANCE_FLOAT32, MARGIN * max(changes))


@contextmanager
def _rounding(model: Any, eps: float, generator: torch.Generator) -> Generator[None]:
    """Perturbs the output of every module of a model inside this context."""

    def perturbed(value: Any) -> Any:
        if isinstance(value, tuple):
            return (perturbed(value[0]), *value[1:])
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        draws = torch.rand(value.shape, generator=generator).to(value.device) - 0.5
        return (value.float() * (1 + eps * draws)).to(value.dtype)

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: perturbed(output))
        for module in model.modules()
        if module is not model
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
