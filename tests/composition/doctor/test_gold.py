"""Rewards against gold, wrong and empty answers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rlkit.composition.doctor.gold import (
    another,
    asked_form,
    check,
    forms_of,
    gold_of,
)
from rlkit.composition.doctor.patient import Patient
from tests.composition.doctor.patients import patient_of, text

BOXED = [{"prompt": f"{i}+{i}= in \\boxed{{}}", "answer": str(2 * i)} for i in range(1, 7)]
PLAIN = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(1, 7)]


def only_boxed(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    return [float(f"\\boxed{{{a}}}" in c) for c, a in zip(completions, answer, strict=True)]


def never(completions: list[str], **columns: Any) -> list[float]:
    return [0.0 for _ in completions]


def always(completions: list[str], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def ends_with(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    found = [re.findall(r"\d+", c) for c in completions]
    return [float(f[-1:] == [a]) for f, a in zip(found, answer, strict=True)]


@pytest.fixture(autouse=True)
def patient_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many answers are tried depends on how long a call takes, here on no stall."""
    monkeypatch.setattr("rlkit.composition.doctor.gold.SECONDS", 1e6)


def test_a_task_with_its_own_scorer(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "full marks to all 16 gold answers as in the column 'solution'" in found.finding
    assert "neither to wrong nor to empty answers" in found.finding


def test_the_form_asked_for_decides() -> None:
    found = check(patient_of(reward=only_boxed, rows=BOXED))
    assert found.verdict == "ok"
    assert "all 6 gold answers in \\boxed{}, as the prompts ask" in found.finding


def test_a_form_that_nobody_asked_for_is_a_warning() -> None:
    found = check(patient_of(reward=only_boxed, rows=PLAIN))
    assert found.verdict == "warning"
    assert "task.suffix" in found.advice
    assert check(patient_of(reward=ends_with, rows=PLAIN)).verdict == "ok"


def test_a_reward_that_never_gives_full_marks() -> None:
    found = check(patient_of(reward=never, rows=BOXED))
    assert found.verdict == "problem"
    assert "none of 6 gold answers in \\boxed{}" in text(found)
    assert "'\\\\boxed{2}' to '1+1= in" in text(found)


def test_one_unreadable_gold_answer_is_a_warning_with_the_example() -> None:
    odd = {"prompt": "7+7= in \\boxed{}", "answer": "fourteen"}

    def reads_numbers(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
        return [
            float(bool(re.search(r"\d", c)) and m)
            for c, m in zip(completions, only_boxed(completions, answer), strict=True)
        ]

    found = check(patient_of(reward=reads_numbers, rows=[*BOXED, odd]))
    assert found.verdict == "warning"
    assert "6 of 7" in found.finding and "fourteen" in found.finding


def test_a_reward_that_pays_for_anything() -> None:
    found = check(patient_of(reward=always, rows=PLAIN))
    assert found.verdict == "problem"
    assert "full marks to an empty answer" in found.finding
    assert "all 6 wrong answers" in found.finding


def test_rows_without_answers_cannot_be_tried() -> None:
    found = check(patient_of(rows=[{"prompt": "1+1="}]))
    assert found.verdict == "ok"
    assert "no column 'answer'" in found.finding


def test_a_boxed_letter_keeps_its_backslash() -> None:
    assert forms_of({"prompt": "x", "answer": "\\frac12"})["in \\boxed{}"] == "\\boxed{\\frac12}"
    assert asked_form(BOXED) == "in \\boxed{}" and asked_form(PLAIN) is None


def test_another_answer_need_not_be_a_text() -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]
    assert another(rows[0], rows) == {"answer": 2}
    assert gold_of({"answer": 0}) == "0" and gold_of({"answer": None}) == gold_of({}) == ""
    assert another(rows[0], rows[:1]) is None
