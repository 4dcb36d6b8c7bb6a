"""Every loss, correction, advantage and anchor on the pretend device, as the CPU computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, LossBatch, PolicyTerms
from rlkit.interfaces import AnchorPolicy, Correction, PolicyLoss
from rlkit.registry import build, names
from rlkit.testing import advantages, losses
from rlkit.training.objective import Objective
from tests.device.pretend import CPU, DEVICE, pretending

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


def check(parts: Any, **settings: Any) -> None:
    for splits in SPLITS.values():
        expected = gradients(CPU, splits, parts(), **settings)
        with pretending():
            found = gradients(DEVICE, splits, parts(), **settings)
        assert found[0] == expected[0]
        assert torch.equal(found[1], expected[1]) and torch.equal(found[2], expected[2])


@pytest.mark.parametrize("name", names("loss"))
def test_a_loss(name: str) -> None:
    check(lambda: (build("loss", name), (), None))
    if build("loss", name).accepts_expert:
        check(lambda: (build("loss", name), (), None), experts=True)


@pytest.mark.parametrize("under", UNDER)
@pytest.mark.parametrize("name", names("correction"))
def test_a_correction(name: str, under: str) -> None:
    check(lambda: (build("loss", under), [(name, build("correction", name))], None))


@pytest.mark.parametrize("weighted", [None, "importance_weight", "bias_correction"])
@pytest.mark.parametrize("name", names("anchor"))
def test_the_penalty_of_an_anchor(name: str, weighted: str | None) -> None:
    settings: dict[str, Any] = {"beta": 0.1}
    if weighted == "bias_correction":
        if build("anchor", name).proximal is not None:
            return  # refused
        settings |= {"bias_correction_cap": 2.0, "gradient_estimator": "k3"}
    if weighted is not None:
        settings[weighted] = True
    check(lambda: (build("loss", "ppo"), (), build("anchor", name, **settings)))


def moved(batch: AdvantageBatch, place: torch.device) -> AdvantageBatch:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return (value.float() if value.is_floating_point() else value).to(place)
        return {name: move(inner) for name, inner in value.items()}

    return AdvantageBatch(**{f.name: move(getattr(batch, f.name)) for f in fields(batch)})


@pytest.mark.parametrize("name", names("advantage"))
def test_an_advantage(name: str) -> None:
    """A run computes them on the CPU; they would do it anywhere."""
    given = advantages.examples(build("advantage", name).needs)
    expected = build("advantage", name)(moved(given, CPU))
    with pretending():
        part = build("advantage", name)
        batch = moved(given, DEVICE)
        found = part(batch)
        assert torch.equal(found.advantage.cpu(), expected.advantage)
        assert torch.equal(found.returns.cpu(), expected.returns)
        values = (batch.values + 0.1).requires_grad_()
        loss, _ = part.value_loss(values, batch.values, found.returns.to(DEVICE))
        loss.sum().backward()
        assert values.grad is not None and values.grad.device == DEVICE
