"""The rewards of the comparison, called by both sides, and a record of what they were called with.

With RLKIT_BENCH_RECORD in the environment every call is noted and written there when the process
ends: the prompts, the number of responses and their tokens, the mean reward. With
RLKIT_BENCH_RECORD_IDS too, the responses' token ids.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CALLS: list[dict[str, Any]] = []
NUMBER = re.compile(r"-?\d+")


def text_of(completion: Any) -> str:
    """A completion's text, of a chat or not."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def note(prompts: Sequence[Any], ids: Sequence[Sequence[int]], rewards: Sequence[float]) -> None:
    """Note a call."""
    if "RLKIT_BENCH_RECORD" not in os.environ:
        return
    if not CALLS:
        atexit.register(write)
    groups = [p for i, p in enumerate(prompts) if i == 0 or p != prompts[i - 1]]
    CALLS.append(
        {
            "prompts": groups,
            "responses": len(ids),
            "tokens": sum(map(len, ids)),
            "reward": sum(rewards) / len(rewards),
        }
    )
    if "RLKIT_BENCH_RECORD_IDS" in os.environ:
        CALLS[-1]["ids"] = [list(each) for each in ids]


def write() -> None:
    """Write every call."""
    Path(os.environ["RLKIT_BENCH_RECORD"]).write_text(json.dumps(CALLS))


def even(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    **columns: Any,
) -> list[float]:
    """The share of a response's characters that are even digits: a random model can learn it."""
    rewards = []
    for text in map(text_of, completions):
        rewards.append(sum(c in "02468" for c in text) / max(1, len(text)))
    note(prompts, completion_ids, rewards)
    return rewards


def total(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    answer: Sequence[str],
    **columns: Any,
) -> list[float]:
    """1 if the last number is the answer, and 0.1 times the share of digits.

    The second term lets the responses of almost every group differ in reward.
    """
    rewards = []
    for text, right in zip(map(text_of, completions), answer, strict=True):
        numbers = NUMBER.findall(text)
        digits = sum(c.isdigit() for c in text) / max(1, len(text))
        rewards.append(float(bool(numbers) and numbers[-1] == right) + 0.1 * digits)
    note(prompts, completion_ids, rewards)
    return rewards
