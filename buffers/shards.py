"""Groups on disk: immutable shards of a fixed size, of which a draw reads its own places alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from buffers.storage import TENSOR, MemoryStorage, Stored, group_from_state, group_state
from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import ReplayBuffer, State

PLAIN = ("step", "oldest_version", "prompt_id")  # the last one is not in older states
SHARD_BYTES = 32 * 2**20
"""Size of a full shard. What is younger than the last full shard is still in memory."""
DATA, BOUNDS = "data", "bounds"
Texts = Callable[[], Iterable[str]]
_SHARD = re.compile(r"shard-(\d{6,})\.safetensors", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A group as bytes.

    First its tensors, one run a dtype, the largest numbers first so that all are aligned; then a
    line of JSON with the sizes of the tensors in each run, and one with the rest of the group.
    """

    data: Tensor
    """[bytes] uint8"""
    text: int
    """Where the text begins, after the tensors."""

    def read(self) -> Group:
        """The group, in memory of its own."""
        return unpacked(self.data.clone(), self.text)


def unpacked(data: Tensor, text: int) -> Group:
    """The group of these bytes; its tensors share their memory."""
    sizes, tree = data[text:].numpy().tobytes().split(b"\n", 1)
    parts: dict[str, Iterator[Tensor]] = {}
    start = 0
    for name, lengths in json.loads(sizes):
        dtype: torch.dtype = getattr(torch, name)
        end = start + sum(lengths) * dtype.itemsize
        parts[name] = iter(torch.split_with_sizes(data[start:end].view(dtype), lengths))
        start = end

    def tensor(value: State) -> Any:
        if TENSOR not in value:
            return value
        name, shape = value[TENSOR]
        flat = next(parts[name])
        return flat if len(shape) == 1 else flat.view(shape)

    return group_from_state(json.loads(tree, object_hook=tensor))


def packed(group: Group) -> Packed:
    """The bytes of a group."""
    runs: dict[torch.dtype, list[Tensor]] = {}
    tree = json.dumps(split(group_state(group), runs))
    order = sorted(runs, key=lambda dtype: -dtype.itemsize)
    sizes = json.dumps([[_name(dtype), [len(part) for part in runs[dtype]]] for dtype in order])
    text = f"{sizes}\n{tree}".encode()
    numbers = [torch.cat(runs[dtype]).view(torch.uint8) for dtype in order]
    letters = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return Packed(torch.cat([*numbers, letters]), sum(map(len, numbers)))


@dataclass(frozen=True, eq=False)
class Shard:
    """A file of packed groups that is never written again.

    Its tensors are `data` [bytes], the groups one after the other, and `bounds` [groups, 3], where
    each one begins, where its text begins, and where that ends.
    """

    path: Path
    sha256: str

    @cached_property
    def bounds(self) -> list[tuple[int, int, int]]:
        """`bounds`, counted from the beginning of the file."""
        with self.path.open("rb") as file:
            head = int.from_bytes(file.read(8), "little")
            first = 8 + head + json.loads(file.read(head))[DATA]["data_offsets"][0]
        with safe_open(self.path, "numpy") as shard:
            return [tuple(row) for row in (shard.get_tensor(BOUNDS) + first).tolist()]


@dataclass(frozen=True, slots=True)
class Row:
    """A group in a shard."""

    shard: Shard
    number: int

    def read(self) -> Group:
        """The group, read from its place in the file alone."""
        start, text, stop = self.shard.bounds[self.number]
        data = bytearray(stop - start)
        with self.shard.path.open("rb", buffering=0) as file:
            file.seek(start)
            if file.readinto(data) != len(data):
                raise UserError(f"{self.shard.path} was cut while the run used it")
        return unpacked(torch.frombuffer(data, dtype=torch.uint8), text - start)


def split(value: Any, runs: dict[torch.dtype, list[Tensor]]) -> Any:
    """The tree with dtype and shape in place of each tensor, which goes flat to `runs`."""
    if isinstance(value, Tensor):
        runs.setdefault(value.dtype, []).append(value.detach().cpu().reshape(-1))
        return {TENSOR: [_name(value.dtype), list(value.shape)]}
    if isinstance(value, dict):
        return {key: split(item, runs) for key, item in value.items()}
    return [split(item, runs) for item in value] if isinstance(value, list) else value


def write_shard(path: Path, groups: Sequence[Packed]) -> Shard:
    """Write groups to a new file, under another name until it is complete."""
    places = pairwise(accumulate((len(group.data) for group in groups), initial=0))
    bounds = [(a, a + group.text, b) for group, (a, b) in zip(groups, places, strict=True)]
    temporary = path.with_suffix(".tmp")
    data = torch.cat([group.data for group in groups])
    save_file({DATA: data, BOUNDS: torch.tensor(bounds)}, temporary)
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    temporary.replace(path)
    return Shard(path, digest)


def checked_shard(path: Path, sha256: str) -> Shard:
    """The shard that a state names. Raises UserError if it is missing or another one."""
    advice = "resume from another checkpoint"
    if not path.is_file():
        raise UserError(f"{path} of the checkpoint's buffer is missing; {advice}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UserError(f"{path} is not the file that the checkpoint's buffer names; {advice}")
    return Shard(path, sha256)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class DiskStorage(MemoryStorage):
    """Keeps groups packed: in shards, those of the newest, unfinished one in memory.

    A shard is deleted when neither a kept group nor a state is in it: the last one, and those that
    `saved` gives as text, which checkpoints hold. A storage without a folder uses a temporary one,
    which nothing outlives: then a state holds the groups.
    """

    def __init__(self, folder: Path | None, saved: Texts = tuple, *, writes: bool = True) -> None:
        self.saved = saved
        self.writes = writes or folder is None
        """Whether it writes its folder; not if another process with the same groups does."""
        self.temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rlkit-buffer-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.pending: list[tuple[Stored, Packed]] = []
        """The groups of the unfinished shard."""
        self.pending_bytes = 0
        self.next = 0
        """The number of the next shard."""
        self.named: dict[str, int] = {}
        """The shards of the last state and of those saved by then, with their numbers."""

    def put(self, groups: Iterable[Group], kept: Collection[Stored]) -> list[Stored]:
        """Store groups and write the shards they fill; `kept` are the earlier ones still wanted.

        Raises UserError when a prompt's columns are no plain values.
        """
        new = super().put(groups, kept)
        for item in new:
            item.place = group = packed(item.group)
            self.pending.append((item, group))
            self.pending_bytes += len(group.data)
            if self.pending_bytes >= SHARD_BYTES:
                wanted = [*kept, *new]
                self._write(wanted)
                self._sweep(wanted)
        return new

    def clear(self) -> None:
        """Forget every group; files that a state names stay."""
        self._write(())
        self._sweep(())

    def state_dict(self, kept: Sequence[Stored]) -> State:
        """The shards' names and hashes, and each group's place."""
        if self.temporary:
            return super().state_dict(kept)
        self._write(kept)
        shards = _shards(kept)
        self.named = self._found(shards)
        self._sweep(kept)
        return {
            "shards": {name: shard.sha256 for name, shard in shards.items()},
            "next": self.next,
            "rows": [_row_state(item) for item in kept],
        }

    def load_state_dict(self, state: State) -> list[Stored]:
        """The groups of a state. Files that no state names are removed.

        Raises UserError when a shard is missing or changed.
        """
        self.pending, self.pending_bytes = [], 0
        if "groups" in state:
            return super().load_state_dict(state)
        shards = {
            name: checked_shard(self.folder / name, sha256)
            for name, sha256 in state["shards"].items()
        }
        self.named = self._found(shards)
        self.next = max([state["next"], *(number + 1 for number in self.named.values())])
        kept = [_stored_row(row, shards) for row in state["rows"]]
        self._sweep(kept)
        return kept

    def _found(self, shards: Iterable[str]) -> dict[str, int]:
        texts = (*shards, *self.saved())
        return {each[0]: int(each[1]) for text in texts for each in _SHARD.finditer(text)}

    def _write(self, kept: Iterable[Stored]) -> None:
        """Make a shard of the pending groups that are still kept."""
        wanted = set(map(id, kept))
        pending = [(item, group) for item, group in self.pending if id(item) in wanted]
        if pending:
            path = self.folder / f"shard-{self.next:06d}.safetensors"
            groups = [group for _, group in pending]
            shard = write_shard(path, groups) if self.writes else Shard(path, "")
            self.next += 1
            for number, (item, _) in enumerate(pending):
                item.place = Row(shard, number)
        self.pending, self.pending_bytes = [], 0

    def _sweep(self, kept: Iterable[Stored]) -> None:
        """Delete the shards that nothing refers to, and what an interrupted write left."""
        wanted = {*_shards(kept), *self.named}
        for path in self.folder.glob("shard-*") if self.writes else ():
            if path.name not in wanted:
                path.unlink()


def open_storage(kind: Literal["memory", "disk"], buffer: ReplayBuffer[Any]) -> MemoryStorage:
    """A new storage of a buffer, in its folder."""
    run, disk = buffer.context, kind == "disk"
    return DiskStorage(run.folder, run.saved_states, writes=run.writes) if disk else MemoryStorage()


def _shards(kept: Iterable[Stored]) -> dict[str, Shard]:
    found = {item.place.shard for item in kept if isinstance(item.place, Row)}
    return {shard.path.name: shard for shard in sorted(found, key=lambda shard: shard.path)}


def _row_state(item: Stored) -> State:
    assert isinstance(item.place, Row), "a state is made of what has been written"
    return {
        "shard": item.place.shard.path.name,
        "number": item.place.number,
        "sample_ids": list(item.sample_ids),
        "rewards": list(item.rewards),
        **{name: getattr(item, name) for name in PLAIN},
    }


def _stored_row(row: State, shards: Mapping[str, Shard]) -> Stored:
    known: State = {"prompt_id": None} | {name: row[name] for name in PLAIN if name in row}
    return Stored(
        place=Row(shards[row["shard"]], row["number"]),
        sample_ids=array("q", row["sample_ids"]),
        rewards=array("d", row["rewards"]),
        **known,
    )
