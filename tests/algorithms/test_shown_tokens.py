"""Tokens that a response holds and the policy did not sample, such as a tool's answer.

Every part must do with them what it does without them: not only ignore their values, but also count
and accumulate as if they were not there.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlkit
from rlkit.batch import AdvantageBatch
from rlkit.testing import advantages, corrections, losses

AT = 3
"""The column before which three are put in."""


def wider(x: Tensor, value: float | bool) -> Tensor:
    """[B, 6] with three columns more."""
    new = torch.full((len(x), 3), value, dtype=x.dtype)
    return torch.cat([x[:, :AT], new, x[:, AT:]], 1)


def without(x: Tensor) -> Tensor:
    """[B, 9] without them."""
    return torch.cat([x[:, :AT], x[:, AT + 3 :]], 1)


def with_shown(batch: Any) -> Any:
    """The batch with three masked columns of numbers that mean nothing."""
    new: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor) and value.dim() == 2:
            new[field.name] = wider(value, False if field.name == "mask" else 4)
        elif field.name in ("anchor_logp", "extras"):
            new[field.name] = {k: wider(v, 4) if v.dim() == 2 else v for k, v in value.items()}
    return replace(batch, **new)


@pytest.mark.parametrize("name", rlkit.names("loss"))
def test_losses(name: str) -> None:
    loss = rlkit.build("loss", name)
    logp, batch = losses.examples(loss.needs)
    value, gradient = losses.value_and_grad(loss, logp, batch)
    found, wide = losses.value_and_grad(loss, wider(logp, -9.0), with_shown(batch))
    torch.testing.assert_close(found, value, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(without(wide), gradient, atol=1e-12, rtol=1e-9)
    assert (wide[:, AT : AT + 3] == 0).all()


@pytest.mark.parametrize("name", rlkit.names("correction"))
def test_corrections(name: str) -> None:
    correction = rlkit.build("correction", name)
    logp, batch = losses.examples(correction.needs)
    plain = corrections.corrected(correction, logp, batch)
    wide = corrections.corrected(correction, wider(logp, -9.0), with_shown(batch))
    assert torch.equal(without(wide.batch.mask), plain.batch.mask)
    torch.testing.assert_close(without(wide.weight)[batch.mask], plain.weight[batch.mask])


@pytest.mark.parametrize("name", rlkit.names("advantage"))
def test_advantages(name: str) -> None:
    advantage = rlkit.build("advantage", name)
    batch: AdvantageBatch = advantages.examples(advantage.needs)
    plain, wide = advantage(batch), advantage(with_shown(batch))
    torch.testing.assert_close(without(wide.advantage), plain.advantage)
    torch.testing.assert_close(without(wide.returns), plain.returns)
    assert (wide.advantage[:, AT : AT + 3] == 0).all()
