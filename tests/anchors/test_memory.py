"""Anchors keep the copies that their pages name, and need no more than a layer beside them."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

import rlkit
from rlkit.interfaces import AnchorPolicy
from rlkit.models.policy import Policy
from rlkit.registry import names
from tests.anchors.memory import Storages, largest, size_of
from tests.tiny import make_policy

STEPS = 4


def lived(anchor: AnchorPolicy[Any], policy: Policy) -> Storages:
    """The storages of an anchor's life: a rebase, some steps, a rebirth, and a step."""
    with Storages() as storages:
        anchor.rebase(policy)
        for step in range(1, STEPS + 1):
            anchor.before_step(policy, step)
            anchor.after_step(policy, step, {})
            if step == STEPS - 1:
                anchor.rebase(policy)
    return storages


COPIES: list[tuple[str, dict[str, Any], float, float]] = [
    ("base", {}, 1, 0),
    ("previous", {"beta": 1.0}, 1, 0),
    ("kl_convex", {"start": 0}, 2, 0),
    ("lagged", {"lag": 2}, 1, 0),
    ("lagged", {"lag": 3, "form": "constant"}, 3, 0),
    ("lagged", {"lag": 1, "form": "constant"}, 1, 0),
    ("tr_dpo", {"every": 1}, 1, 1),
    ("periodic", {"every": 1}, 1, 0),
    ("ppo_ewma", {}, 1, 1),
    ("ema", {}, 1, 1),
    ("ema", {"bias_corrected": True}, 2, 1),
    ("convex", {"ema": 1.0}, 3, 1),
]
"""Copies in the policy's type, and averages: copies of their own under bfloat16, in float32 part of
the first, but for BEMA's, which is never what its reference shows."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fields", "copies", "averages"), COPIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_the_copies_named_and_a_layer(
    name: str, fields: dict[str, Any], copies: int, averages: int, dtype: torch.dtype
) -> None:
    policy = make_policy(num_hidden_layers=8)
    torch.nn.Module.to(policy.model, dtype)
    weights = policy.state_dict()
    whole = size_of(weights)
    if dtype == torch.bfloat16:
        allowed = copies * whole + averages * 2 * whole
    else:
        allowed = (copies + averages * fields.get("bias_corrected", False)) * whole
    peak = lived(rlkit.build("anchor", name, **fields), policy).peak
    slack = largest(weights) + 2048  # rotary frequencies, which no checkpoint holds
    assert allowed <= peak <= allowed + slack, (peak / whole, allowed / whole)


@pytest.mark.parametrize("name", names("anchor"))
def test_a_closed_anchor_holds_nothing(name: str) -> None:
    settings = {each: fields for each, fields, *_ in COPIES}  # the last of a name holds the most
    anchor = rlkit.build("anchor", name, **settings.get(name, {}))
    storages = lived(anchor, make_policy())
    assert (storages.live > 0) == (name != "none")
    anchor.close()
    gc.collect()
    assert storages.live == 0
