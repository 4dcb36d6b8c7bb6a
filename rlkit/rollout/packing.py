"""Responses as trees for checkpoints and for other processes, without pickle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlkit.interfaces import State
from rlkit.rollout.base import Generation
from rlkit.rollout.played import Played


def pack(generations: Sequence[Generation]) -> State:
    """Their tokens concatenated, and the other fields of each."""
    tree: State = {
        "lengths": [len(g.response_ids) for g in generations],
        "response_ids": joined([g.response_ids for g in generations], torch.int64),
        "logp": joined([g.logp for g in generations], torch.float32),
        "policy_version": joined([g.policy_version for g in generations], torch.int32),
        "finish_reasons": [g.finish_reason for g in generations],
        "extras": [dict(g.extras) for g in generations],
    }
    if any(g.played is not None for g in generations):
        tree["played"] = [None if g.played is None else g.played.state() for g in generations]
    return tree


def joined(rows: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Rows [T_i] concatenated; an empty tensor for none."""
    return torch.cat(list(rows)) if rows else torch.zeros(0, dtype=dtype)


def unpack(tree: State) -> list[Generation]:
    """Restore what `pack` returned."""
    rows = zip(
        *(tree[name].split(tree["lengths"]) for name in ("response_ids", "logp", "policy_version")),
        tree["finish_reasons"],
        tree["extras"],
        tree.get("played", [None] * len(tree["lengths"])),
        strict=True,
    )
    return [
        Generation(
            response_ids=ids.clone(),
            logp=logp.clone(),
            policy_version=version.clone(),
            finish_reason=reason,
            extras=extras,
            played=None if played is None else Played.from_state(played),
        )
        for ids, logp, version, reason, extras, played in rows
    ]
