"""Preferences: prompts with a chosen and a rejected response, to train on or to prompt with."""

from __future__ import annotations

from rlkit.ops import CHOSEN, PROMPT, REJECTED, split_preference
from rlkit.registry import register
from rlkit.tasks.jsonl import FileConfig, FileTask, Row
from rlkit.tasks.read import Table


class PreferenceTaskConfig(FileConfig):
    """Settings of a file of preferences."""


@register("task", "preference")
class Preference(FileTask[PreferenceTaskConfig]):
    """Rows of preferences in TRL's formats: `prompt`, `chosen`, `rejected`, texts or messages.

    A prompt that is not given is what both responses begin with. Other columns, such as votes or
    scores of both sides, stay as they are. With `buffer=pairs` the rows are trained on and nothing
    is generated; with another buffer their prompts are answered, and a reward must be chosen.

    Held-out rows show whether the policy ranks responses as they do: `eval/pairs/accuracy` is the
    share of them in which the chosen response has the higher implicit reward, its log-ratio to the
    loss's reference.
    """

    compares = True

    def rows(self, table: Table) -> list[Row]:
        """Each row with its prompt, and both responses as texts without it."""
        found: list[Row] = []
        for index, row in enumerate(table.rows):
            prompt, chosen, rejected = split_preference(row, table.place(index))
            found.append({**row, PROMPT: prompt, CHOSEN: chosen, REJECTED: rejected})
        return found
