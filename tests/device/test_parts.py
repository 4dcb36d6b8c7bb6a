"""Every loss, correction, advantage and anchor on the pretend device, as the CPU computes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.registry import build, names
from rlkit.testing import advantages
from tests.device.parts import (
    SPLITS,
    UNDER,
    check_correction,
    check_loss,
    gradients,
    moved,
)
from tests.device.pretend import CPU, DEVICE, pretending


def check(parts: Any, **settings: Any) -> None:
    for splits in SPLITS.values():
        expected = gradients(CPU, splits, parts(), **settings)
        with pretending():
            found = gradients(DEVICE, splits, parts(), **settings)
        assert found[0] == expected[0]
        assert torch.equal(found[1], expected[1]) and torch.equal(found[2], expected[2])


@pytest.mark.parametrize("name", names("loss"))
def test_a_loss(name: str) -> None:
    check_loss(check, name)


@pytest.mark.parametrize("under", UNDER)
@pytest.mark.parametrize("name", names("correction"))
def test_a_correction(name: str, under: str) -> None:
    check_correction(check, name, under)


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
