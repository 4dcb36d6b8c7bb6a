"""The order of stored groups: each once an epoch, the same after a resume."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from buffers.mix import Mix, MixConfig
from buffers.stored import StoredBuffer, StoredConfig
from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import RunContext, State, StoredData
from tests.stored.groups import group


class Rollouts:
    """Numbered groups, to which others are added."""

    def __init__(self, count: int) -> None:
        self.count, self.added = count, 0

    def __len__(self) -> int:
        return self.count

    def groups(self, places: Sequence[int]) -> list[Group]:
        return [group(10 * place) for place in places]

    def refresh(self) -> None:
        self.count, self.added = self.count + self.added, 0

    def figures(self) -> dict[str, float]:
        return {"encoded": 3.0}

    def state_dict(self) -> State:
        return {"count": self.count}

    def load_state_dict(self, state: State) -> None:
        self.count = state["count"]


def opened(rollouts: Rollouts, seed: int = 3, **settings: object) -> StoredBuffer:
    buffer = StoredBuffer(StoredConfig.model_validate({"path": "somewhere", **settings}))
    buffer.open(RunContext(seed=seed, open_rollouts=lambda data: rollouts))
    return buffer


def places(buffer: StoredBuffer, batch: int, steps: int) -> list[list[int]]:
    built = [buffer.build([], batch, step) for step in range(1, steps + 1)]
    return [[g.samples[0].sample_id // 10 for g in groups] for groups in built]


def test_an_epoch_has_every_group_once_in_an_order_of_its_own() -> None:
    found = places(opened(Rollouts(6)), 2, 6)
    first, second = list(chain(*found[:3])), list(chain(*found[3:]))
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert found == places(opened(Rollouts(6)), 2, 6) != places(opened(Rollouts(6), seed=4), 2, 6)


def test_stored_order() -> None:
    assert places(opened(Rollouts(3), order="stored"), 2, 3) == [[0, 1], [2, 0], [1, 2]]


def test_no_group_is_twice_in_a_step() -> None:
    """A batch larger than the data is all of it."""
    assert [sorted(step) for step in places(opened(Rollouts(3)), 8, 2)] == [[0, 1, 2]] * 2


def test_new_shards_come_with_an_epoch_if_followed() -> None:
    rollouts = Rollouts(2)
    buffer, deaf = (
        opened(rollouts, order="stored", follow=True),
        opened(Rollouts(2), order="stored"),
    )
    rollouts.added = 1
    assert places(buffer, 1, 5) == [[0], [1], [0], [1], [2]]
    assert places(deaf, 1, 5) == [[0], [1], [0], [1], [0]]


def test_a_resumed_buffer_reads_what_the_first_would_have() -> None:
    """Shards that came after the checkpoint are not in the epoch that it goes on with."""
    buffer = opened(Rollouts(5))
    places(buffer, 2, 1)
    state = buffer.state_dict()
    expected = places(buffer, 2, 4)
    again = opened(Rollouts(9))
    again.load_state_dict(state)
    assert places(again, 2, 4) == expected


def test_what_is_asked_for_reaches_the_files(tmp_path: Path) -> None:
    """Computed log-probs are kept in the buffer's folder; what was done is among the metrics."""
    asked: list[StoredData] = []

    def opening(data: StoredData) -> Rollouts:
        asked.append(data)
        return Rollouts(2)

    settings = {"score_with": "base", "other_tokenizer": "encode", "other_temperature": "rescore"}
    buffer = StoredBuffer(StoredConfig.model_validate({"path": "somewhere", **settings}))
    buffer.open(RunContext(folder=tmp_path, open_rollouts=opening))
    expected: Any = {"path": "somewhere", **settings, "folder": tmp_path / "scores"}
    assert asked == [StoredData(**expected)]
    assert buffer.stats() == {"epoch": 0.0, "groups": 2.0, "encoded": 3.0}


def test_a_closed_buffer_holds_no_rollouts_and_no_model_that_scores() -> None:
    made = list[weakref.ref[Rollouts]]()

    def opening(data: StoredData) -> Rollouts:
        found = Rollouts(2)
        made.append(weakref.ref(found))
        return found

    alone = StoredBuffer(StoredConfig(path="somewhere"))
    mixed = Mix(MixConfig(first={"name": "stored"}, second={"name": "fifo"}))
    both: list[Any] = [alone, mixed]
    for number, buffer in enumerate(both):
        buffer.open(RunContext(open_rollouts=opening))
        assert made[number]() is not None
        buffer.close()
        assert made[number]() is None
    assert alone.stats() == {"epoch": 0.0, "groups": 2.0}


def test_nothing_is_generated_and_a_path_is_needed() -> None:
    buffer = opened(Rollouts(2))
    assert buffer.fresh_share(8) == 0
    with pytest.raises(UserError, match=r"set buffer\.path"):
        _ = StoredBuffer().stored_data[0].place


def test_another_temperature_is_rescored_by_a_model_that_must_be_named() -> None:
    config = StoredConfig(path="somewhere", other_temperature="rescore")
    with pytest.raises(UserError, match=r"rescore needs buffer\.score_with"):
        _ = StoredBuffer(config).stored_data
