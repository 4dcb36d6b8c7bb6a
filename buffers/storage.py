"""What buffers keep of groups: trees for a state, and the numbers that a selection reads."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from rlkit.batch import Group, Prompt, Sample
from rlkit.errors import UserError
from rlkit.interfaces import State

PLAIN_FIELDS = ("sample_id", "prompt_id", "reward", "finish_reason", "source", "step")
TENSOR_FIELDS = ("response_ids", "loss_mask", "behavior_logp", "policy_version")
TENSOR = "$tensor"
"""The key under which files keep the tensors of a tree; no column may have it."""


def group_state(group: Group) -> State:
    """A group as dicts, lists, tensors, numbers and text.

    Raises UserError when a column of the prompt is not a JSON-like value.
    """
    prompt = group.prompt
    return {
        "prompt": {
            "prompt_id": prompt.prompt_id,
            "text_or_messages": prompt.text_or_messages,
            "ids": prompt.ids,
            "columns": plain(prompt.columns, ""),
        },
        "samples": [sample_state(sample) for sample in group.samples],
    }


def group_from_state(state: State) -> Group:
    """The group `group_state` was given."""
    return Group(
        prompt=Prompt(**state["prompt"]), samples=[sample_from_state(s) for s in state["samples"]]
    )


def sample_state(sample: Sample) -> State:
    """A response as dicts, tensors, numbers and text."""
    fields = {name: getattr(sample, name) for name in PLAIN_FIELDS + TENSOR_FIELDS}
    return {**fields, "rewards": dict(sample.rewards), "extras": dict(sample.extras)}


def sample_from_state(state: State) -> Sample:
    """The response `sample_state` was given."""
    return Sample(**state)


def plain(value: Any, where: str) -> Any:
    """A tree of dicts with text keys, lists and plain values; `where` is the column it stands in.

    Raises UserError for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) and k != TENSOR for k in value):
        return {key: plain(item, where or key) for key, item in value.items()}
    raise UserError(
        f"column '{where}' of a prompt holds a {type(value).__name__}, which a checkpoint cannot "
        "keep; make it text, a number, a list, or a dict with text keys"
    )


def oldest_version(samples: Iterable[Sample]) -> int | None:
    """The oldest weights that sampled a token; None if there is no token."""
    versions = [int(s.policy_version.min()) for s in samples if len(s.policy_version)]
    return min(versions, default=None)


class Place(Protocol):
    """Where a group lies outside the memory."""

    def read(self) -> Group:
        """The group, in memory of its own."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Stored:
    """A stored group: where it is, and the numbers that a selection reads without loading it."""

    place: Group | Place
    sample_ids: array[int]
    rewards: array[float]
    step: int
    """The training step it belongs to: that of its newest response."""
    oldest_version: int | None
    """The oldest weights that sampled a token of it; None = it has no token."""
    prompt_id: str | None
    """Of the prompt; None in checkpoints from before it was kept."""

    @property
    def group(self) -> Group:
        """The group itself; loaded at each call if it is on disk."""
        return self.place if isinstance(self.place, Group) else self.place.read()

    def staleness(self, step: int) -> int:
        """Steps since the oldest weights that sampled a token; 0 for a group without one."""
        return 0 if self.oldest_version is None else step - self.oldest_version


class MemoryStorage:
    """Keeps groups as they are."""

    def put(self, groups: Iterable[Group], kept: Collection[Stored]) -> list[Stored]:
        """Store groups; `kept` are the earlier ones that are still wanted.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        return [in_memory(group) for group in groups]

    def clear(self) -> None:
        """Forget every group."""

    def state_dict(self, kept: Sequence[Stored]) -> State:
        """What `load_state_dict` makes the same list of."""
        return {"groups": [group_state(item.group) for item in kept]}

    def load_state_dict(self, state: State) -> list[Stored]:
        """The groups of a state, in its order.

        Raises UserError for a state that lies in files.
        """
        if "groups" not in state:
            raise UserError(
                "the checkpoint's buffer is in files of its run; resume with buffer.storage=disk"
            )
        return self.put(map(group_from_state, state["groups"]), ())


def in_memory(group: Group) -> Stored:
    """A group that is stored as it is."""
    plain(group.prompt.columns, "")
    return Stored(
        place=group,
        sample_ids=array("q", [sample.sample_id for sample in group.samples]),
        rewards=array("d", [sample.reward for sample in group.samples]),
        step=max(sample.step for sample in group.samples),
        oldest_version=oldest_version(group.samples),
        prompt_id=group.prompt.prompt_id,
    )
