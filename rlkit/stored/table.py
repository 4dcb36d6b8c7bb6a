"""Responses as rows of a table, and back.

One row per response, in columns that `datasets` and pandas read:

    prompt (text) or messages     prompt_ids      response, response_ids
    behavior_logp, loss_mask, policy_version: one value per response token
    reward, rewards               group, sample_id, prompt_id, step, source, finish_reason
    extras (one number each), token_extras (one per token), columns (the task's, as JSON)
    task (of a mix)

Cached log-probs under a reference are neither stored nor read: they say nothing of the response,
and the weights of the run that reads it are others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlkit.batch import CACHED, Group, Prompt, Sample
from rlkit.errors import UserError
from rlkit.interfaces import PROMPT_IDS, TASK, asked_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ABOUT, UNKNOWN = "rlkit", "unknown_logp"
"""The entry of a file's metadata that holds its card, and what it says besides: whether a response
of the policy has no behavior log-probs."""
NEEDED = ("group", "prompt_ids", "response_ids", "reward")
"""Columns without which a table holds no rollouts."""


def schema() -> Any:
    """The columns and their types."""
    import pyarrow as pa

    ids, message = pa.list_(pa.int32()), [("role", pa.string()), ("content", pa.string())]
    return pa.schema(
        {
            "sample_id": pa.int64(),
            "group": pa.int64(),
            "prompt_id": pa.string(),
            "prompt": pa.string(),
            "messages": pa.list_(pa.struct(message)),
            "columns": pa.string(),
            "task": pa.string(),
            "prompt_ids": ids,
            "response": pa.string(),
            "response_ids": ids,
            "behavior_logp": pa.list_(pa.float32()),
            "loss_mask": pa.list_(pa.bool_()),
            "policy_version": ids,
            "reward": pa.float64(),
            "rewards": _named(pa.float64()),
            "finish_reason": pa.string(),
            "source": pa.string(),
            "step": pa.int32(),
            "extras": _named(pa.float64()),
            "token_extras": _named(pa.list_(pa.float32())),
        }
    )


def _named(kind: Any) -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([("name", pa.string()), ("value", kind)]))


def to_table(
    groups: Sequence[Group],
    tokenizer: PreTrainedTokenizerBase,
    offset: int = 0,
    about: Mapping[str, object] | None = None,
) -> Any:
    """The responses of some groups, one row each, with the table's `about` in its metadata.

    Behavior log-probs that are not numbers are unknown, and null in the table.
    `offset` steps were done in the stages before; steps and versions of the table count them too.
    """
    import pyarrow as pa

    samples = [sample for group in groups for sample in group.samples]
    prompts = [group.prompt for group in groups for _ in group.samples]
    known = [s.source != "expert" and not s.behavior_logp.isnan().any() for s in samples]
    asked = [prompt.text_or_messages for prompt in prompts]
    kept = [_kept(sample) for sample in samples]
    columns: dict[str, Any] = {
        "sample_id": [s.sample_id for s in samples],
        "group": [number for group in groups for number in [_number(group)] * len(group.samples)],
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "prompt": [text if isinstance(text, str) else None for text in asked],
        "messages": [None if isinstance(text, str) else text for text in asked],
        "columns": [
            text for group in groups for text in [_columns(group.prompt)] * len(group.samples)
        ],
        "task": [_task(prompt) for prompt in prompts],
        "prompt_ids": _lists(list(map(asked_ids, prompts, samples)), torch.int32),
        "response": [tokenizer.decode(s.response_ids, skip_special_tokens=True) for s in samples],
        "response_ids": _lists([s.response_ids for s in samples], torch.int32),
        "behavior_logp": _lists([s.behavior_logp for s in samples], torch.float32, known=known),
        "loss_mask": _lists([s.loss_mask for s in samples], torch.bool),
        "policy_version": _lists([s.policy_version + offset for s in samples], torch.int32),
        "reward": [s.reward for s in samples],
        "rewards": [_pairs(s.rewards) for s in samples],
        "finish_reason": [s.finish_reason for s in samples],
        "source": [s.source for s in samples],
        "step": [s.step + offset for s in samples],
        "extras": [_pairs(numbers) for numbers, _ in kept],
        "token_extras": [_pairs(per_token) for _, per_token in kept],
    }
    kinds = schema()
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, type=kinds.field(name).type)
        for name, values in columns.items()
    ]
    unknown = any(s.source != "expert" and not k for s, k in zip(samples, known, strict=True))
    metadata = {ABOUT: json.dumps({**about, UNKNOWN: unknown})} if about is not None else None
    return pa.Table.from_arrays(arrays, schema=kinds.with_metadata(metadata))


def _number(group: Group) -> int:
    """A group's number: the first id of its own responses, which no other group of a run has.

    Of demonstrations alone, whose ids come again with their prompt, one of the step and the ids.
    """
    own = min((s.sample_id for s in group.samples if s.sample_id >= 0), default=None)
    if own is not None:
        return own
    words = json.dumps([[s.step, s.sample_id] for s in group.samples])
    return -1 - int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")


def _columns(prompt: Prompt) -> str:
    return json.dumps(dict(prompt.columns), default=str, ensure_ascii=False)


def _task(prompt: Prompt) -> str | None:
    """The task of a mix that a prompt is of, by its column."""
    name = prompt.columns.get(TASK)
    return name if isinstance(name, str) else None


def _kept(sample: Sample) -> tuple[dict[str, float], dict[str, Any]]:
    """A sample's extras that say something of it: numbers, and arrays with one per token."""
    kept = {
        name: v
        for name, v in sample.extras.items()
        if name != PROMPT_IDS and not name.startswith(CACHED)
    }
    per_token = {n: v for n, v in kept.items() if isinstance(v, Tensor) and v.dim()}
    return (
        {name: float(v) for name, v in kept.items() if name not in per_token},
        {name: v.float().numpy() for name, v in per_token.items()},
    )


def _lists(rows: Sequence[Tensor], dtype: torch.dtype, known: Sequence[bool] | None = None) -> Any:
    """One list per row; null where it is not `known`. No value passes through Python."""
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    flat = torch.cat([*rows, torch.zeros(0, dtype=dtype)]).to(dtype)
    unknown = None if known is None else pa.array([not each for each in known], type=pa.bool_())
    return pa.ListArray.from_arrays(ends, pa.array(flat.numpy()), mask=unknown)


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def check_columns(names: Iterable[str], place: str) -> None:
    """Raise UserError if a table has not the columns of rollouts."""
    missing = [name for name in NEEDED if name not in set(names)]
    if missing:
        raise UserError(
            f"{place} holds no rollouts: it has no column {', '.join(missing)}; rollout.save=true "
            "writes such files"
        )


def to_groups(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[Group]:
    """The groups of some rows, in their order; `numbers` become the samples' ids.

    Rows of one group stand together. A stored response counts as sampled by the weights with which
    the run that reads it begins (version 0): the version it was stored with counts another run's
    steps. Its age is therefore at least 1. Behavior log-probs that are null are NaN; those of
    demonstrations are 0, and nothing may read them.
    """
    groups: list[Group] = []
    last: object = None
    for row, number in zip(rows, numbers, strict=True):
        if not groups or row["group"] != last:
            groups.append(Group(prompt=_prompt(row), samples=[]))
            last = row["group"]
        prompt = groups[-1].prompt
        groups[-1].samples.append(_sample(row, prompt, number))
    return groups


def _prompt(row: Mapping[str, Any]) -> Prompt:
    asked = row.get("messages") or row.get("prompt") or ""
    return Prompt(
        prompt_id=f"stored-{row.get('prompt_id') or row['group']}",
        text_or_messages=asked,
        ids=_tensor(row["prompt_ids"], torch.int64),
        columns=json.loads(row.get("columns") or "{}"),
    )


def _sample(row: Mapping[str, Any], prompt: Prompt, number: int) -> Sample:
    ids = _tensor(row["response_ids"], torch.int64)
    logp, mask = row.get("behavior_logp"), row.get("loss_mask")
    source = row.get("source") or "policy"
    unknown = torch.zeros(len(ids)) if source == "expert" else torch.full((len(ids),), torch.nan)
    extras, asked = _extras(row), _tensor(row["prompt_ids"], torch.int64)
    if not torch.equal(asked, prompt.ids):  # an environment added another text to it
        extras[PROMPT_IDS] = asked
    return Sample(
        sample_id=number,
        prompt_id=prompt.prompt_id,
        response_ids=ids,
        loss_mask=torch.ones(len(ids), dtype=torch.bool)
        if mask is None
        else _tensor(mask, torch.bool),
        behavior_logp=unknown if logp is None else _tensor(logp, torch.float32),
        policy_version=torch.zeros(len(ids), dtype=torch.int32),
        reward=float(row["reward"]),
        rewards={e["name"]: e["value"] for e in row.get("rewards") or ()},
        finish_reason=row.get("finish_reason") or "stop",
        source=source,
        step=0,
        extras=extras,
    )


def _extras(row: Mapping[str, Any]) -> dict[str, Tensor | float]:
    """The extras of a row, without log-probs that a file says are cached under a reference.

    Under whose weights they are it cannot say: this run's reference of that name is another policy.
    """
    named = [(e["name"], e["value"]) for e in row.get("extras") or ()]
    named += [
        (e["name"], _tensor(e["value"], torch.float32)) for e in row.get("token_extras") or ()
    ]
    return {name: value for name, value in named if not name.startswith(CACHED)}


def _tensor(values: Any, dtype: torch.dtype) -> Tensor:
    return (
        torch.from_numpy(np.array(values)).to(dtype) if len(values) else torch.zeros(0, dtype=dtype)
    )
