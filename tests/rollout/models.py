"""Small random models that vLLM accepts: its heads are at least 32 wide."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlkit.batch import Request
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation
from tests import tiny
from tests.tiny import make_prompts

TEXTS = ["1+2=", "12+345=", "7=", "1+2+3+4=", "99="]


def make_policy(*, tied: bool = True, temperature: float = 1.0, seed: int = 0) -> Policy:
    return tiny.make_policy(
        seed,
        temperature,
        hidden_size=64,
        intermediate_size=64,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
    )


def requests(policy: Policy, n: int = 4) -> list[Request]:
    return [Request(prompt=p, n=n) for p in make_prompts(policy, TEXTS)]


def change(policy: Policy, names: str, by: float = 0.02) -> None:
    """Move the parameters whose name contains `names`, as a training step would."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if names in name:
                parameter.add_(by * torch.randn(parameter.shape, generator=draws))


def largest_difference(
    policy: Policy, asked: Sequence[Request], answers: Sequence[Sequence[Generation]]
) -> float:
    """Between the engine's log-probs and a full forward's."""
    flat = [(r.prompt.ids, g) for r, group in zip(asked, answers, strict=True) for g in group]
    logp = policy.logp(Tokens.of([p for p, _ in flat], [g.response_ids for _, g in flat]))
    pairs = zip(logp, flat, strict=True)
    return max(float((row[: len(g.logp)] - g.logp).abs().max()) for row, (_, g) in pairs)


def cut(ids: list[int], end: list[int]) -> list[int]:
    """A response up to the first place where these tokens are."""
    for place in range(len(ids)):
        if ids[place : place + len(end)] == end:
            return ids[: place + len(end)]
    return ids
