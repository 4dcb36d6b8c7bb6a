"""Responses of one group with known log-ratios to one policy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.testing.losses import examples

BEHAVIOR, PROX, REFERENCE = (frozenset({n}) for n in ("behavior", "prox", "anchor:base"))


def responses(
    log_ratio: list[list[float]], advantage: list[float], to: frozenset[str] = BEHAVIOR
) -> tuple[Tensor, LossBatch]:
    """Responses at log-prob -1 with these log-ratios to one policy; NaN is a masked token.

    They are one group. The other policies' log-probs are NaN, so that reading them would show.
    """
    delta = torch.tensor(log_ratio, dtype=torch.float64)
    logp, mask = torch.full_like(delta, -1.0), ~delta.isnan()
    unknown = torch.full_like(delta, math.nan)
    other = torch.where(mask, logp - delta, 7.0)
    batch = examples(frozenset())[1].rows(torch.zeros(len(delta), dtype=torch.long))
    return logp, replace(
        batch,
        mask=mask,
        advantage=torch.tensor(advantage, dtype=torch.float64)[:, None].expand_as(delta),
        behavior_logp=other if to == BEHAVIOR else unknown,
        prox_logp=other if to == PROX else unknown,
        anchor_logp={"base": other} if to == REFERENCE else {},
        group=torch.zeros(len(delta), dtype=torch.long),
    )


def joined(*parts: LossBatch) -> LossBatch:
    """Several one-group batches as one, each a group of its own."""
    fields: dict[str, Any] = {
        f: torch.cat([getattr(part, f) for part in parts])
        for f in LossBatch.__dataclass_fields__
        if f not in ("anchor_logp", "group", "rewards", "extras")
    }
    names = parts[0].anchor_logp
    sizes = torch.tensor([len(part.mask) for part in parts])
    return LossBatch(
        **fields,
        anchor_logp={name: torch.cat([part.anchor_logp[name] for part in parts]) for name in names},
        group=torch.arange(len(parts)).repeat_interleave(sizes),
    )


TWO = [[0.5, -1.5, math.nan], [0.5, 0.5, 1.0]]
"""Sums S = -1 and 2, with advantages 1 and -1; lengths 2 and 3."""
