"""The reward that marks a benchmark: any of the accepted answers is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.rewards.math.reward import Math

ACCEPTED, TOLERANCE = "accepted", "tolerance"
"""Columns of a benchmark's rows: a list of answers, and the relative error a number may have."""


class Accepted(Math):
    """1 if the completion's answer equals one of the row's accepted answers, else 0.

    A row without the column `accepted` has its `answer` alone; one without `tolerance` that of the
    settings. None if the answers could not be read. Status: our choice.
    """

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score per completion."""
        n = len(completions)
        answers = columns.get("answer", [None] * n)
        accepted = [
            given or [answer]
            for given, answer in zip(columns.get(ACCEPTED, [None] * n), answers, strict=True)
        ]
        tolerances = columns.get(TOLERANCE, [None] * n)
        marks: list[list[float]] = [[] for _ in range(n)]
        for tolerance in dict.fromkeys(tolerances):
            pairs = [
                (i, gold) for i in range(n) if tolerances[i] == tolerance for gold in accepted[i]
            ]
            found = self._judged(prompts, completions, pairs, tolerance)
            for (i, _), mark in zip(pairs, found, strict=True):
                marks[i] += [] if mark is None else [mark]
        return [max(each, default=None) for each in marks]

    def _judged(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        pairs: Sequence[tuple[int, Any]],
        tolerance: float | None,
    ) -> list[float | None]:
        """The mark of each (completion, gold)."""
        before = self.config
        if tolerance is not None:
            self.config = before.model_copy(update={"tolerance": tolerance})
        try:
            return super().__call__(
                [prompts[i] for i, _ in pairs],
                [completions[i] for i, _ in pairs],
                answer=[gold for _, gold in pairs],
            )
        finally:
            self.config = before
