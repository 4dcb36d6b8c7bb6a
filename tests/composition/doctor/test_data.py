"""What a run finds before it loads the model, found here too."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.composition.doctor.data import check
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
