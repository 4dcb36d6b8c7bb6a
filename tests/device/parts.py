"""Gradients of parts on a device, and batches moved to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, LossBatch, PolicyTerms
from rlkit.interfaces import AnchorPolicy, Correction, PolicyLoss
from rlkit.registry import build
from rlkit.testing import losses
from rlkit.training.objective import Objective

REFERENCES = ("base", "previous", "ema", "proximal", "lagged", "teacher")
SPLITS = {"one": [[0, 1, 2, 3, 4, 5, 6, 7]], "two": [[0, 3, 5, 6], [1, 2, 4, 7]]}
UNDER = ("ppo", "rloo")
"""Losses under which corrections are tried: one per token, one over groups."""


def example(*, experts: bool = False) -> tuple[Tensor, LossBatch]:
    """Float32 log-probs [8, 6], and a batch with every reference."""
    logp, batch = losses.examples([f"anchor:{name}" for name in REFERENCES])
    batch = batch.map(lambda x: x.float() if x.is_floating_point() else x)
    if experts:
        shown = torch.arange(8) % 4 == 0
        behavior = torch.where(shown[:, None], 0.0, batch.behavior_logp)
        batch = replace(batch, expert=shown, behavior_logp=behavior)
    return logp.float(), batch


def gradients(
    place: torch.device,
    splits: Sequence[Sequence[int]],
    parts: tuple[PolicyLoss[Any], Sequence[tuple[str, Correction[Any]]], AnchorPolicy[Any] | None],
    *,
    experts: bool = False,
) -> tuple[float, Tensor, Tensor]:
    """The loss of a minibatch, and its gradient in the log-probs and the entropy."""
    logp, batch = example(experts=experts)
    logp, batch = logp.to(place), batch.to(place)
    leaves = logp.requires_grad_(), torch.full_like(logp.detach(), 0.7).requires_grad_()

    def forward(rows: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=leaves[0][rows] * 1.0, entropy=leaves[1][rows] * 1.0)

    objective = Objective(*parts)
    found = objective.backward(forward, batch, [torch.tensor(rows) for rows in splits])
    given = [x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves]
    return found.value, given[0].cpu(), given[1].cpu()


def moved(batch: AdvantageBatch, place: torch.device) -> AdvantageBatch:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return (value.float() if value.is_floating_point() else value).to(place)
        return {name: move(inner) for name, inner in value.items()}

    return AdvantageBatch(**{f.name: move(getattr(batch, f.name)) for f in fields(batch)})


def check_loss(check: Callable[..., None], name: str) -> None:
    """`check` a loss, also with demonstrations if it takes them."""
    check(lambda: (build("loss", name), (), None))
    if build("loss", name).accepts_expert:
        check(lambda: (build("loss", name), (), None), experts=True)


def check_correction(check: Callable[..., None], name: str, under: str) -> None:
    """`check` a correction under a loss."""
    check(lambda: (build("loss", under), [(name, build("correction", name))], None))
