"""Groups on disk: the same as in memory, in files that are deleted when nothing names them."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers import shards
from buffers.shards import DiskStorage, packed
from buffers.storage import Stored
from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.registry import build
from rlkit.testing import check_buffer
from rlkit.testing.base import stored
from rlkit.testing.buffers import ids
from tests.buffers.test_replay import Cycle, one
from tests.buffers.test_storage import same

NAMES = ("fifo", "prioritized", "value_decay")
FIELDS: dict[str, dict[str, Any]] = {
    "fifo": {"window": 3},
    "prioritized": {"capacity": 9},
    "value_decay": {"capacity": 9, "noise": 1.0},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards of three groups of two responses, whose sizes differ by a few bytes."""
    size = 5 * len(packed(one(1)).data) // 2
    monkeypatch.setattr(shards, "SHARD_BYTES", size)
    return size


def on_disk(name: str, folder: Path | None, **fields: Any) -> Any:
    buffer = build("buffer", name, storage="disk", **FIELDS[name], **fields)
    buffer.open(RunContext(folder=folder))
    return buffer


def files(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".safetensors") for path in folder.iterdir())


def put(storage: DiskStorage, made: int, kept: list[Stored], count: int = 1) -> list[Stored]:
    """Store groups of two responses, the first of which has the number `made`."""
    return storage.put([one(made + 2 * i) for i in range(count)], kept)


def odd_group() -> Group:
    """Other dtypes, shapes and lengths; chat prompts, columns with a tensor, no token at all."""
    first, second = one(7).samples
    extras: dict[str, Any] = {
        "half": torch.tensor([0.1, -3.0], dtype=torch.bfloat16),
        "table": torch.arange(6, dtype=torch.int16).view(2, 3).t(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "seed": 0.1 + 0.2,
    }
    empty = replace(
        second,
        response_ids=torch.zeros(0, dtype=torch.int64),
        loss_mask=torch.zeros(0, dtype=torch.bool),
        behavior_logp=torch.zeros(0),
        policy_version=torch.zeros(0, dtype=torch.int32),
        extras={},
    )
    prompt = replace(
        one(7).prompt,
        text_or_messages=[{"role": "user", "content": "2 + 2 = ?\n\u00fc"}],
        columns={"answer": "4", "nested": [None, {"deep": [True, 1e-17]}], "t": torch.ones(3)},
    )
    return Group(prompt=prompt, samples=[replace(first, extras=extras), empty])


def test_a_packed_group_is_the_group_bit_for_bit() -> None:
    for group in (odd_group(), one(1)):
        assert same(packed(group).read(), group)


def test_a_group_comes_back_from_a_shard_bit_for_bit(tmp_path: Path, small: int) -> None:
    """Among others, so that each is cut out at its own place."""
    storage = DiskStorage(tmp_path)
    groups = [one(1), odd_group(), one(9, n=5), one(21)]
    kept = storage.put(groups, [])
    storage.state_dict(kept)
    assert len(files(tmp_path)) == 2
    assert all(same(item.group, group) for item, group in zip(kept, groups, strict=True))


def test_what_is_read_is_a_copy(tmp_path: Path, small: int) -> None:
    storage = DiskStorage(tmp_path)
    kept = put(storage, 1, [], count=4)
    for item in (kept[0], kept[3]):
        item.group.samples[0].behavior_logp.fill_(9.0)
        assert not item.group.samples[0].behavior_logp.eq(9.0).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("over_age", ["drop", "keep"])
def test_a_run_on_disk_is_the_run_in_memory(
    name: str, over_age: str, tmp_path: Path, small: int
) -> None:
    """The same groups field by field, the same statistics; shards come and go meanwhile."""
    fields: dict[str, Any] = {"replay_fraction": 0.6, "max_age": 2, "over_age": over_age}
    memory = Cycle(build("buffer", name, **FIELDS[name], **fields), 5)
    disk = Cycle(on_disk(name, tmp_path, **fields), 5)
    seen: set[str] = set()
    for step in range(1, 15):
        pairs = zip(memory.step(step)[1], disk.step(step)[1], strict=True)
        assert all(same(a, b) for a, b in pairs)
        assert memory.buffer.stats() == disk.buffer.stats()
        assert len(memory.buffer) == len(disk.buffer)
        seen |= {*files(tmp_path)}
    assert len(seen) > 5 and len(files(tmp_path)) < len(seen)


@pytest.mark.parametrize("name", NAMES)
def test_a_buffer_on_disk_resumes_from_a_copy_of_its_folder(
    name: str, tmp_path: Path, small: int
) -> None:
    cycle = Cycle(on_disk(name, tmp_path / "a"), 6)
    for step in range(1, 8):
        cycle.step(step)
    state = stored(cycle.buffer.state_dict())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = Cycle(on_disk(name, tmp_path / "b"), 6)
    again.buffer.load_state_dict(state)
    again.prompts.taken, again.rollouts.made = cycle.prompts.taken, cycle.rollouts.made
    replayed = 0
    for step in range(8, 28):
        (_, ours), (fresh, theirs) = cycle.step(step), again.step(step)
        assert ids(ours) == ids(theirs)
        assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))
        assert cycle.buffer.stats() == again.buffer.stats()
        replayed += len(theirs) - len(fresh)
    assert replayed > 20


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_holds_on_disk_without_a_folder(name: str) -> None:
    """The state then holds the groups, since nothing outlives the temporary folder."""
    check_buffer(on_disk(name, None))


def test_a_temporary_folder_leaves_with_its_storage() -> None:
    storage = DiskStorage(None)
    folder = storage.folder
    assert folder.is_dir()
    del storage
    gc.collect()
    assert not folder.exists()


def test_a_shard_is_written_when_it_is_full(tmp_path: Path, small: int) -> None:
    storage = DiskStorage(tmp_path)
    kept = put(storage, 1, [], count=2)
    assert files(tmp_path) == []
    kept += put(storage, 5, kept)
    assert files(tmp_path) == ["shard-000000"]
    kept += put(storage, 7, kept, count=7)
    assert files(tmp_path) == [f"shard-00000{i}" for i in range(3)]
    assert [item.group.samples[0].sample_id for item in kept] == [*range(1, 21, 2)]


def test_a_shard_leaves_when_the_last_of_its_groups_does(tmp_path: Path, small: int) -> None:
    storage = DiskStorage(tmp_path)
    kept = put(storage, 1, [], count=6)
    kept = kept[2:]
    kept += put(storage, 13, kept, count=3)
    assert files(tmp_path) == [f"shard-00000{i}" for i in range(3)]
    kept = kept[1:]
    kept += put(storage, 19, kept, count=3)
    assert files(tmp_path) == [f"shard-00000{i}" for i in (1, 2, 3)]


def test_groups_that_left_before_their_shard_was_full_are_never_written(
    tmp_path: Path, small: int
) -> None:
    storage = DiskStorage(tmp_path)
    put(storage, 1, [], count=2)
    kept = put(storage, 5, [])
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < small
    assert kept[0].group.samples[0].sample_id == 5


def test_clear_deletes_what_no_state_names(tmp_path: Path, small: int) -> None:
    buffer = on_disk("fifo", tmp_path)
    cycle = Cycle(buffer, 5)
    cycle.step(1)
    buffer.state_dict()
    saved = files(tmp_path)
    for step in (2, 3):
        cycle.step(step)
    assert len(files(tmp_path)) > len(saved) > 0
    buffer.clear()
    assert files(tmp_path) == saved and len(buffer) == 0
    assert cycle.step(4)[1] and buffer.storage.put([], []) == []


def test_what_an_interrupted_write_and_an_earlier_run_left_is_removed(
    tmp_path: Path, small: int
) -> None:
    for name in ("shard-000000.tmp", "shard-000000.safetensors", "shard-000007.safetensors"):
        (tmp_path / name).write_text("torn")
    kept = put(DiskStorage(tmp_path), 1, [], count=3)
    assert files(tmp_path) == ["shard-000000"]
    assert same(kept[0].group, one(1))


class Checkpoints:
    """The states that checkpoints hold, as text, by name."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}

    def __call__(self) -> list[str]:
        return list(self.there.values())

    def write(self, name: str, state: Any) -> None:
        self.there[name] = json.dumps(state)

    def read(self, name: str) -> Any:
        return json.loads(self.there[name])


def test_the_states_of_the_checkpoints_that_there_are_keep_their_shards(
    tmp_path: Path, small: int
) -> None:
    """One shard and one state a round; the stock moves on, so only states hold a shard.

    The first is the best and stays, the last two are kept, and those between are pruned; of what
    could not be written nothing stays, and nothing that was written leaves for it.
    """
    checkpoints = Checkpoints()
    storage = DiskStorage(tmp_path, checkpoints)
    kept: list[Stored] = []
    for number in range(6):
        kept = put(storage, 1 + 6 * number, kept, count=3)
        checkpoints.write(str(number), storage.state_dict(kept))
        if number > 2:
            del checkpoints.there[str(number - 2)]
    for failed in range(6, 10):
        kept = put(storage, 1 + 6 * failed, kept, count=3)
        storage.state_dict(kept)
    assert [int(name[6:]) for name in files(tmp_path)] == [0, 4, 5, 9]
    for number in (0, 4, 5):
        state = checkpoints.read(str(number))
        (first, *_) = DiskStorage(tmp_path, checkpoints).load_state_dict(state)
        assert first.group.samples[0].sample_id == 1 + 6 * number
    kept = put(storage, 100, kept, count=3)
    assert len(files(tmp_path)) == 4, "files of no checkpoint went with the resume"


def saved(folder: Path, count: int) -> tuple[Checkpoints, DiskStorage, list[Stored]]:
    """So many checkpoints, each of three new groups alone; the storage and what it holds then."""
    checkpoints, kept = Checkpoints(), list[Stored]()
    storage = DiskStorage(folder, checkpoints)
    for number in range(count):
        kept = put(storage, 1 + 6 * number, [], count=3)
        checkpoints.write(str(number), storage.state_dict(kept))
    return checkpoints, storage, kept


def test_a_resume_from_an_earlier_checkpoint_spoils_no_later_one(
    tmp_path: Path, small: int
) -> None:
    checkpoints, _, _ = saved(tmp_path, 3)
    again = DiskStorage(tmp_path, checkpoints)
    kept = again.load_state_dict(checkpoints.read("0"))
    again.state_dict(put(again, 50, kept, count=3))
    for number in (1, 2):
        state = checkpoints.read(str(number))
        (first, *_) = DiskStorage(tmp_path, checkpoints).load_state_dict(state)
        assert first.group.samples[0].sample_id == 1 + 6 * number


def test_a_state_flushes_the_unfinished_shard(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    kept = put(storage, 1, [])
    state = stored(storage.state_dict(kept))
    assert files(tmp_path) == ["shard-000000"]
    assert list(state["shards"]) == ["shard-000000.safetensors"]
    (again,) = DiskStorage(tmp_path).load_state_dict(state)
    assert same(again.group, kept[0].group)
    for name in ("sample_ids", "rewards", "step", "oldest_version"):
        assert getattr(again, name) == getattr(kept[0], name), name


def test_what_was_written_after_the_last_checkpoint_is_removed_and_its_numbers_used_again(
    tmp_path: Path, small: int
) -> None:
    checkpoints, storage, kept = saved(tmp_path, 2)
    put(storage, 13, kept, count=6)
    assert len(files(tmp_path)) == 4
    storage = DiskStorage(tmp_path, checkpoints)
    kept = storage.load_state_dict(checkpoints.read("1"))
    assert files(tmp_path) == ["shard-000000", "shard-000001"]
    assert [item.group.samples[0].sample_id for item in kept] == [7, 9, 11]
    put(storage, 25, kept, count=3)
    assert files(tmp_path) == [f"shard-00000{i}" for i in range(3)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(Path.unlink, "is missing; resume from"), (flip, "is not the file that the checkpoint")],
)
def test_a_missing_or_changed_shard_is_a_line(
    spoil: Callable[[Path], None], message: str, tmp_path: Path, small: int
) -> None:
    storage = DiskStorage(tmp_path)
    state = storage.state_dict(put(storage, 1, [], count=6))
    spoil(tmp_path / "shard-000001.safetensors")
    with pytest.raises(UserError, match=f"shard-000001.safetensors.* {message}") as error:
        DiskStorage(tmp_path).load_state_dict(state)
    assert "\n" not in str(error.value)
    assert "shard-000000" in files(tmp_path)[0], "nothing is removed"


def test_a_state_of_files_needs_the_disk_and_one_of_groups_does_not(
    tmp_path: Path, small: int
) -> None:
    cycle = Cycle(on_disk("fifo", tmp_path), 5)
    cycle.step(1)
    with pytest.raises(UserError, match="resume with buffer.storage=disk"):
        build("buffer", "fifo").load_state_dict(cycle.buffer.state_dict())
    memory = Cycle(build("buffer", "fifo"), 5)
    fresh = memory.step(1)[0]
    again = on_disk("fifo", tmp_path / "other")
    again.load_state_dict(stored(memory.buffer.state_dict()))
    assert ids(again.build([], 5, 2)) == ids(memory.buffer.build([], 5, 2))
    assert len(again) == sum(len(group.samples) for group in fresh)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_step_does_beside_its_draw_needs_no_file(
    name: str, tmp_path: Path, small: int
) -> None:
    """With the shards gone, storing, scores, ages, statistics and forgetting still work."""
    cycle = Cycle(on_disk(name, tmp_path, replay_fraction=0.0, max_age=2), 5)
    for step in range(1, 6):
        cycle.step(step)
        for path in tmp_path.iterdir():
            path.unlink()
    assert len(cycle.buffer) > 0 and cycle.buffer.stats()["groups"] > 0


def test_what_could_not_be_written_is_written_with_the_next_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at a checkpoint: the run goes on with its groups, and a later state has them."""
    storage = DiskStorage(tmp_path)
    kept = put(storage, 1, [])

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", full)
        with pytest.raises(OSError):
            storage.state_dict(kept)
    assert same(kept[0].group, one(1))
    state = storage.state_dict(kept)
    again = DiskStorage(tmp_path).load_state_dict(state)
    assert same(again[0].group, one(1))


def test_of_several_one_writes_and_the_others_read(tmp_path: Path) -> None:
    first, second = DiskStorage(tmp_path), DiskStorage(tmp_path, writes=False)
    mine, theirs = put(first, 1, []), put(second, 1, [])
    second.state_dict(theirs)
    assert files(tmp_path) == []
    first.state_dict(mine)
    assert len(files(tmp_path)) == 1 and same(theirs[0].group, one(1))
    second.clear()
    second.state_dict([])
    assert len(files(tmp_path)) == 1
