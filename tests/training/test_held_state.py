"""What counts as state of a part, and when a part that does not save it is refused."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from buffers.fifo import Fifo, FifoConfig
from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import Part, ReplayBuffer, RunContext, State
from rlkit.models.policy import Policy
from rlkit.testing.buffers import a_resumed_buffer_draws_the_same
from rlkit.training.held_state import HeldState, fingerprint
from rlkit.training.trainer import Trainer
from tests.sessions import config_of, make_session


@dataclass(slots=True)
class Slotted:
    seen: list[int] = field(default_factory=list)


class Own:
    def __init__(self) -> None:
        self.count = 0


class Plain(Part):
    """A part with one attribute."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def appended(value: Any) -> None:
    value.append(1)


CHANGES: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (lambda: [], appended),
    (lambda: {"a": [1]}, lambda v: v["a"].append(2)),
    (lambda: {"a": 1}, lambda v: v.update(a=2)),
    (lambda: {1}, lambda v: v.add(2)),
    (lambda: deque([1]), appended),
    (lambda: torch.zeros(3), lambda v: v.add_(1)),
    (lambda: torch.zeros((), dtype=torch.bfloat16), lambda v: v.fill_(1)),
    (lambda: np.zeros(3)[::-1], lambda v: v.__setitem__(0, 1)),
    (lambda: np.random.default_rng(0), lambda v: v.random()),
    (lambda: random.Random(0), lambda v: v.random()),
    (torch.Generator, lambda v: torch.rand(1, generator=v)),
    (Slotted, lambda v: v.seen.append(1)),
    (Own, lambda v: vars(v).update(count=1)),
]


@pytest.mark.parametrize(("make", "change"), CHANGES)
def test_a_change_in_place_is_noticed_and_sameness_too(
    make: Callable[[], Any], change: Callable[[Any], Any]
) -> None:
    value = make()
    before = fingerprint(value, __name__)
    assert fingerprint(value, __name__) == before
    change(value)
    assert fingerprint(value, __name__) != before


def test_a_value_that_holds_itself_ends() -> None:
    value: list[Any] = [1]
    value.append(value)
    before = fingerprint(value, __name__)
    value.append(2)
    assert fingerprint(value, __name__) != before


def test_only_what_changes_is_state() -> None:
    lock = threading.Lock()
    part = Plain(lock)
    held = HeldState({"part": part})
    with lock:
        held.check()
    part.config = Part.Config()
    held.check()
    part.value = None
    with pytest.raises(UserError, match=r"part \(Plain\) has changed its attribute 'value'"):
        held.check()


def test_a_wrapped_method_is_no_state() -> None:
    part = Plain(1)
    held = HeldState({"part": part})
    part.state_dict = lambda: {}  # type: ignore[method-assign]
    held.check()


def test_caches_and_parts_with_a_state_dict_are_left_alone() -> None:
    class Cached(Plain):
        caches = ("value",)

    class Saved(Plain):
        def state_dict(self) -> State:
            return {}

    parts = {"one": Cached(1), "two": Saved(1)}
    held = HeldState(parts)
    for part in parts.values():
        part.value = 2
    held.check()


class Counting(Fifo):
    """Adds a count of its own, which FIFO's `state_dict` knows nothing of."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        self.seen = getattr(self, "seen", 0) + 1
        return super().build(fresh, batch, step)


class Remembered(Fifo):
    """What follows from the rest is no state."""

    @cached_property
    def table(self) -> list[int]:
        return [self.config.window]

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return super().build(fresh[: self.table[0] + batch], batch, step)


class Remembering(Counting):
    def state_dict(self) -> State:
        return super().state_dict() | {"seen": self.seen}


def test_what_a_subclass_adds_to_a_part_with_memory_is_state_too() -> None:
    """What the base itself changes is the base's to keep."""
    parts = {
        "buffer": Counting(FifoConfig(window=3)),
        "other": Remembering(),
        "plain": Remembered(),
    }
    held = HeldState(parts)
    for step in (1, 2):
        for buffer in parts.values():
            buffer.build([], 4, step)
            buffer.add([], step)
    with pytest.raises(
        UserError, match=r"^buffer \(Counting\) .*'seen'.* no state_dict of its own .it has Fifo's"
    ):
        held.check()
    with pytest.raises(AssertionError, match="'seen'"):  # rlkit check
        a_resumed_buffer_draws_the_same(Counting())
    Counting.caches = ("seen",)
    try:
        HeldState(parts).check()
    finally:
        del Counting.caches


class Forgetful(ReplayBuffer):
    """Keeps groups and does not save them."""

    late = 1

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[Group] = []

    def open(self, context: RunContext) -> None:
        super().open(context)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return fresh

    def add(self, fresh: list[Group], step: int) -> None:
        if step >= self.late:
            self.groups += fresh

    def clear(self) -> None:
        self.groups = []

    def __len__(self) -> int:
        return len(self.groups)


class Later(Forgetful):
    """Keeps them from the second step on."""

    late = 2


def test_a_buffer_that_would_lose_its_groups_is_refused_after_the_first_step(
    policy: Policy, tmp_path: Path
) -> None:
    trainer = Trainer(make_session(policy, tmp_path, buffer=Forgetful()))
    with pytest.raises(UserError, match=r"buffer \(Forgetful\).*'groups'.*state_dict"):
        trainer.run()
    assert trainer.count.step == 1 and not list(tmp_path.glob("checkpoint-*"))


def test_one_that_begins_later_is_refused_at_a_checkpoint_from_which_a_run_goes_on(
    policy: Policy, tmp_path: Path
) -> None:
    """The last checkpoint is written: nothing goes on from it, but its weights are worth it."""
    config = config_of(tmp_path / "a", steps=2)
    Trainer(make_session(policy, tmp_path / "a", buffer=Later(), config=config)).run()
    assert (tmp_path / "a" / "checkpoint-2").is_dir()
    every = config.checkpoint.model_copy(update={"every": 2})
    longer = config_of(tmp_path / "b", steps=3).model_copy(update={"checkpoint": every})
    trainer = Trainer(make_session(policy, tmp_path / "b", buffer=Later(), config=longer))
    with pytest.raises(UserError, match=r"buffer \(Later\)"):
        trainer.run()
    assert trainer.count.step == 2 and not list((tmp_path / "b").glob("checkpoint-*"))
