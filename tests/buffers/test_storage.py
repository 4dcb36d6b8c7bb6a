"""A group as a tree that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from buffers.storage import TENSOR, group_from_state, group_state, in_memory
from rlkit.batch import Group
from rlkit.errors import UserError
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


def test_a_stored_group_gives_its_numbers() -> None:
    """The step of its newest response, the weights of its oldest token."""
    rollouts = FakeRollouts()
    (prompt,) = FakePrompts().take(1)
    first, second = rollouts.group(prompt, 2, step=4).samples
    mixed = replace(
        second, step=3, policy_version=torch.tensor([3, 2, 3], dtype=torch.int32), reward=0.25
    )
    item = in_memory(Group(prompt=prompt, samples=[first, mixed]))
    assert list(item.sample_ids) == [1, 2] and list(item.rewards) == [1.0, 0.25]
    assert (item.step, item.oldest_version, item.staleness(7)) == (4, 2, 5)


def test_a_group_without_a_token_is_never_stale() -> None:
    (sample,) = FakeRollouts().group(FakePrompts().take(1)[0], 1, step=4).samples
    empty = replace(sample, policy_version=torch.zeros(0, dtype=torch.int32))
    item = in_memory(Group(prompt=FakePrompts().take(1)[0], samples=[empty]))
    assert item.oldest_version is None and item.staleness(7) == 0


def test_a_column_with_the_key_of_tensors_is_refused() -> None:
    """A file would read the dict as a tensor."""
    prompts, rollouts = FakePrompts(), FakeRollouts()
    (prompt,) = prompts.take(1)
    odd = replace(prompt, columns={"meta": {TENSOR: ["int64", [1]]}})
    with pytest.raises(UserError, match="column 'meta' of a prompt holds a dict"):
        in_memory(rollouts.group(odd, 1, step=1))
