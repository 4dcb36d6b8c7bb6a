"""Groups as trees of plain values and tensors, for the state of buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rlkit.batch import Group, Prompt, Sample
from rlkit.errors import UserError
from rlkit.interfaces import State

PLAIN_FIELDS = ("sample_id", "prompt_id", "reward", "finish_reason", "source", "step")
TENSOR_FIELDS = ("response_ids", "loss_mask", "behavior_logp", "policy_version")


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
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, where or key) for key, item in value.items()}
    raise UserError(
        f"column '{where}' of a prompt holds a {type(value).__name__}, which a checkpoint cannot "
        "keep; make it text, a number, a list, or a dict with text keys"
    )
