"""Scores of reasoning-gym answers: the whole batch, with a verdict each."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.pool import Verdict
from rlkit.tasks.gym_scorer import GymScorer

ENTRY = {"question": "Q", "answer": "AB", "metadata": {}}


def test_answers_are_judged_together_and_in_order() -> None:
    scorer = GymScorer("string_insertion", {})
    texts = ["AB", "9**9**9**9", None, "AB"]
    first, late, none, last = scorer.judge([ENTRY] * 4, texts, 2.0)
    scorer.close()
    assert first.score == last.score == 1.0 and none.score == 0.0
    assert late.event == "timeouts" and late.mark == 0.0


def test_a_scorer_that_fails_whatever_the_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = GymScorer("chain_sum", {"min_terms": 2})

    def judge(items: list[Any], seconds: float) -> list[Verdict]:
        return [Verdict("lost"), Verdict("error", detail="KeyError: 'x'")]

    monkeypatch.setattr(scorer.pool, "judge", judge)
    with pytest.raises(UserError, match="reasoning-gym's chain_sum failed: KeyError: 'x'"):
        scorer.judge([ENTRY] * 2, ["1", "2"], 1.0)
