"""The responses of a step and their tokens, as the sample browser reads them: bounded, rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.runs.completion_files import completion_file, has_tokens, read_completions
from rlkit.runs.token_file import read_tokens, token_file

Payload = dict[str, Any]
MOST_ROWS = 512
"""Responses of a step that are shown."""
LONGEST, ALL_TEXTS = 4_000, 800_000
"""Characters shown of a response or a prompt, and of all those of a step together."""
LEAST = 200
"""Characters shown of each, however many there are."""
MOST_TOKENS, ALL_TOKENS = 2_000, 30_000
"""Tokens shown of a response, and of all those of a step together."""
HEAD = 0.6
"""The share of what is shown of a long text that is its beginning; the rest is its end."""
DIGITS = 4
NUMBERS = {
    "advantages": "adv",
    "behavior_logp": "behavior",
    "prox_logp": "prox",
    "logp": "logp",
    "ratio": "ratio",
    "last_logp": "lastLogp",
    "last_ratio": "lastRatio",
}
FLAGS = {"loss_mask": "mask", "clipped": "clipped", "last_clipped": "lastClipped"}
"""Columns of a token file, and what the page calls them."""


def step_payload(
    run_dir: Path, step: int, longest: int = LONGEST, most: int = MOST_ROWS
) -> Payload:
    """The responses of a step: `rows`, the first `most`, and the `prompts` they answer by id.

    A row without a prompt is of a token file whose response was left out of the completions.
    """
    whole = read_completions(completion_file(run_dir, step))
    records = token_records(run_dir, step)
    recorded = {record["row"] for record in records}
    rows = list(enumerate(whole[:most]))
    room = max(LEAST, min(longest, ALL_TEXTS // max(1, len(rows))))
    prompts = {str(row.get("prompt_id")): row.get("prompt", "") for _, row in rows}
    shown = [row_payload(n, row, room) | {"tokens": n in recorded} for n, row in rows]
    shown += [
        row_payload(record["row"], record | {"response": "".join(record["pieces"])}, room)
        | {"tokens": True}
        for record in records
        if record["row"] >= len(whole) and len(rows) < most
    ]
    number_groups(shown)
    return {
        "step": step,
        "rows": shown,
        "prompts": {name: prompt_payload(prompt, room) for name, prompt in prompts.items()},
        "more": max(0, len(whole) - most),
    }


def token_records(run_dir: Path, step: int) -> list[dict[str, Any]]:
    """The rows of a step's token file; none of one that is damaged."""
    if not has_tokens(run_dir, step):
        return []
    try:
        return read_tokens(token_file(run_dir, step))
    except UserError:
        return []


def row_payload(number: int, row: Mapping[str, Any], room: int) -> Payload:
    """One response; runs of older versions know less of it."""
    age = row.get("age", 0)
    rewards = row.get("rewards")
    return {
        "row": number,
        "group": row.get("group"),
        "id": row.get("sample_id"),
        "prompt": str(row.get("prompt_id")),
        "text": response_payload(row, room),
        "length": row.get("tokens"),
        "source": row.get("source", "policy"),
        "made": row.get("made_at"),
        "age": age,
        "replayed": bool(row.get("replayed", age)),
        "finish": row.get("finish_reason"),
        "reward": rounded(row.get("reward")),
        "parts": {k: rounded(v) for k, v in rewards.items()} if isinstance(rewards, dict) else {},
        "advantage": rounded(row.get("advantage")),
    }


def response_payload(row: Mapping[str, Any], room: int) -> object:
    """A response as a text, or its turns as `prompt_payload` has those of a chat."""
    turns = row.get("turns")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return cut(row.get("response", ""), room)
    each = max(LEAST, room // max(1, len(turns)))
    return [
        {"role": str(turn.get("role", "")), "text": cut(turn.get("text", ""), each)}
        for turn in turns
    ]


def is_cut(text: object) -> bool:
    """Whether something of a text, or of a turn, was left out."""
    if not isinstance(text, list):
        return False
    return any(not isinstance(part, dict) or is_cut(part["text"]) for part in text)


def number_groups(rows: Sequence[Payload]) -> None:
    """Number groups where a run did not: neighbors that answer one prompt are one."""
    number, previous = -1, None
    for row in rows:
        number += row["prompt"] != previous
        previous = row["prompt"]
        if row["group"] is None:
            row["group"] = number


def prompt_payload(prompt: object, room: int) -> object:
    """A text, or the turns of a chat."""
    if isinstance(prompt, list):
        turns = [turn if isinstance(turn, dict) else {"content": turn} for turn in prompt]
        return [
            {"role": str(turn.get("role", "")), "text": cut(turn.get("content", ""), room)}
            for turn in turns
        ]
    return cut(prompt, room)


def cut(value: object, room: int) -> object:
    """A text, or [beginning, characters left out, end] of a long one."""
    text = value if isinstance(value, str) else str(value)
    if len(text) <= room:
        return text
    head = int(HEAD * room)
    return [text[:head], len(text) - room, text[len(text) - room + head :]]


def rounded(value: object) -> float | int | None:
    """A number to four digits; None for none, and for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e6 else short


def tokens_payload(run_dir: Path, step: int, most: int = ALL_TOKENS) -> Payload:
    """What the trainer used of each token, by the response's row in the batch."""
    records = token_records(run_dir, step)
    room = max(1, min(MOST_TOKENS, most // max(1, len(records))))
    return {"step": step, "rows": {str(r["row"]): record_payload(r, room) for r in records}}


def record_payload(record: Mapping[str, Any], room: int) -> Payload:
    """The tokens of a response: lists, or one value for all of them; None = there is none."""
    count = len(record["token_ids"])
    head = count if count <= room else math.ceil(HEAD * room)
    kept = [*range(head), *range(count - (room - head) if count > room else count, count)]

    def chosen(name: str) -> list[Any] | None:
        values = record[name]
        return None if values is None else [values[i] for i in kept]

    numbers = {
        short: one_or_all([rounded(v) for v in values])
        for name, short in NUMBERS.items()
        if (values := chosen(name)) is not None
    }
    flags = {
        short: one_or_all([int(bool(v)) for v in values])
        for name, short in FLAGS.items()
        if (values := chosen(name)) is not None
    }
    return {
        "count": count,
        "left_out": [head, count - len(kept)],
        "passes": record["passes"],
        "skipped": bool(record["skipped"]),
        "ids": chosen("token_ids"),
        "pieces": chosen("pieces"),
        "version": one_or_all(chosen("policy_version") or []),
        **numbers,
        **flags,
    }


def one_or_all(values: list[Any]) -> Any:
    """A list, or its only value."""
    return values[0] if values and all(v == values[0] for v in values) else values
