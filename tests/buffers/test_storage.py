"""A group as a tree that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from buffers.storage import group_from_state, group_state
from rlkit.batch import Group
from rlkit.testing.base import stored
from rlkit.testing.buffers import FakePrompts, FakeRollouts


def same(a: Group, b: Group) -> bool:
    """Field by field: prompts and samples."""
    pairs: list[Any] = [(a.prompt, b.prompt), *zip(a.samples, b.samples, strict=True)]
    return all(
        equal(getattr(x, f), getattr(y, f)) for x, y in pairs for f in x.__dataclass_fields__
    )


def equal(x: Any, y: Any) -> bool:
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x)
    if isinstance(x, torch.Tensor):
        return x.dtype == y.dtype and torch.equal(x, y)
    return bool(x == y)


def test_a_group_survives_its_state() -> None:
    """Chat prompts, nested columns, per-token extras."""
    prompts, rollouts = FakePrompts(), FakeRollouts()
    (prompt,) = prompts.take(1)
    prompt = replace(prompt, text_or_messages=[{"role": "user", "content": "2+2?"}])
    group = rollouts.group(prompt, 2, step=4)
    assert same(group_from_state(stored(group_state(group))), group)
