"""Some of a task's problems, encoded, and how many of them are too long."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.batch import Prompt
from rlkit.composition.composition import Composition
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.tasks.encode import Encoder
from rlkit.tasks.prompts import Prompts

MOST = 512
"""Problems looked at, spread over the whole set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The problems looked at."""

    total: int
    """Problems of the training set."""
    lengths: Sequence[int]
    """Tokens of each prompt looked at."""
    prompts: Prompts
    """Those that are not too long."""
    rows: Sequence[Mapping[str, Any]]
    """All rows looked at."""
    first: Prompt

    @property
    def encoder(self) -> Encoder:
        """What turned them into tokens."""
        return self.prompts.encoder

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt that is used."""
        return self.prompts.longest

    def drawn(self, count: int, seed: int) -> list[Prompt]:
        """Some prompts of random places, fewer if there are not as many."""
        order = stream_rng(seed, "doctor/prompts").permutation(len(self.prompts))
        return [self.prompts[int(place)] for place in order[:count]]


def spread(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many rows, at even distances."""
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def longest_allowed(c: Composition) -> int:
    """Most tokens of a prompt; those of the embedded model's own task are not counted by a run."""
    return sys.maxsize if c.task.embedded else c.engine.config.max_prompt_length


def look_at(c: Composition, policy: Policy) -> Looked:
    """Encode some problems of the training set. Raises UserError if none of them can be used."""
    whole, _ = c.rows
    rows = spread(whole, MOST)
    every = Prompts("train", rows, policy.tokenizer, c.task.config.chat_template)
    limit = longest_allowed(c)
    lengths = [len(every.encoder.encode(every.encoder.asked(row["prompt"]))) for row in rows]
    kept = [row for row, length in zip(rows, lengths, strict=True) if 0 < length <= limit]
    if not kept:
        raise UserError(
            f"none of {len(rows)} problems looked at has a prompt of 1 to {limit} tokens (the "
            f"shortest has {min(lengths)}); raise rollout.max_prompt_length"
        )
    usable = Prompts("train", kept, policy.tokenizer, c.task.config.chat_template)
    usable = usable.within(limit, "drop")
    return Looked(total=len(whole), lengths=lengths, prompts=usable, rows=rows, first=every[0])
