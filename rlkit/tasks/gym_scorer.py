"""Scores of answers to reasoning-gym's problems, by processes that can be killed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.errors import UserError
from rlkit.rewards.pool import Verdict, WorkerPool, usual_size
from rlkit.tasks.gym_worker import pack


class GymScorer:
    """The scorer of one data set. Safe to call from any thread."""

    def __init__(self, dataset: str, params: Mapping[str, Any]) -> None:
        self.dataset = dataset
        settings = json.dumps({**params, "seed": 0, "size": 1})
        self.pool = WorkerPool("rlkit.tasks.gym_worker", [dataset, settings], usual_size())

    def judge(
        self, entries: Sequence[Mapping[str, Any]], texts: Sequence[str | None], seconds: float
    ) -> list[Verdict]:
        """The verdict on each answer to a problem, within so many seconds each.

        Raises UserError if the scorer fails whatever the answer.
        """
        items = [
            {"entry": pack(entry), "text": text, "alarm": 2 * seconds + 1}
            for entry, text in zip(entries, texts, strict=True)
        ]
        verdicts = self.pool.judge(items, seconds)
        for verdict in verdicts:
            if verdict.kind == "error":
                raise UserError(
                    f"the scorer of reasoning-gym's {self.dataset} failed: {verdict.detail}"
                )
        return verdicts

    def close(self) -> None:
        """End the processes. A later call starts new ones."""
        self.pool.close()
