"""What a run finds before it loads the model, found here too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlkit.composition.doctor import endings
from rlkit.composition.doctor import gold as gold_check
from rlkit.composition.doctor.data import check
from rlkit.composition.doctor.examine import one
from rlkit.composition.doctor.patient import Patient
from rlkit.errors import UserError
from tests.composition.doctor.patients import patient_of


def test_good_data(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert found.figures == {"train": 51570, "eval": 256}


def test_a_reward_that_cannot_be_called() -> None:
    def needs_more(completions: list[str], solution: list[str]) -> list[float]:
        return [0.0 for _ in completions]

    with pytest.raises(UserError, match="needs the argument 'solution'"):
        check(patient_of(reward=needs_more))


def test_a_row_without_a_prompt() -> None:
    rows: list[Any] = [{"prompt": "1+1=", "answer": "2"}, {"answer": "2"}]
    with pytest.raises(UserError, match="problem 1 of the train set has no column 'prompt'"):
        check(patient_of(rows=rows))


def test_a_run_without_a_reward_is_no_problem() -> None:
    """Preferences are trained on as they are; nothing is generated."""
    patient = patient_of()
    c = replace(patient.c, rewards={}, eval_rewards={})
    patient = Patient(c, 60.0)
    assert "the run has no reward, and generates nothing" in check(patient).finding
    ends, gold = one("endings", endings.check, patient), one("gold", gold_check.check, patient)
    assert ends.verdict == "warning" and "has no reward, and trains on given data" in ends.finding
    assert gold.verdict == "ok" and "no gold answer can be tried" in gold.finding
