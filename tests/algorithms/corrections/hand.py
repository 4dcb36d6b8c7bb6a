"""Two responses with known ratios, for weights worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction
from rlkit.registry import build
from rlkit.testing.losses import examples

MASK = torch.tensor([[True, True, False], [True, True, True]])


def batch_of(k: Tensor, r: Tensor | None = None, **fields: Any) -> tuple[Tensor, LossBatch]:
    """Log-probs and a batch with prox / behavior = k and pi / prox = r (1 if left out), [2, 3]."""
    logp, batch = examples(frozenset())
    prox = logp[:2, :3]
    batch = batch.rows(torch.tensor([0, 1]))
    made = replace(
        batch,
        mask=MASK,
        advantage=batch.advantage[:, :3],
        prox_logp=prox,
        behavior_logp=prox - k.log(),
        truncated=torch.zeros(2, dtype=torch.bool),
    )
    policy = prox if r is None else prox + r.log()
    return policy, replace(made, **fields)


def apply(part: Correction[Any], logp: Tensor, batch: LossBatch) -> Corrected:
    return part(PolicyTerms(logp=logp, entropy=torch.zeros_like(logp)), batch)


def weight_of(name: str, logp: Tensor, batch: LossBatch, **fields: Any) -> Tensor:
    """The weights at valid tokens, 0 where masked; no token leaves the mask."""
    out = apply(build("correction", name, **fields), logp, batch)
    assert torch.equal(out.batch.mask, batch.mask), "tokens leave by weight 0, not by the mask"
    return torch.where(batch.mask, out.weight, 0.0)


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


K = tensor([0.5, 4.0, 99.0], [1.5, 1.5, 1.5])  # geometric means sqrt(2) and 1.5


ONES = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
