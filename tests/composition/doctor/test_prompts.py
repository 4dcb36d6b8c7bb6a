"""Prompts that are too long for the run or the model."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.prompts import check
from tests.composition.doctor.patients import patient_of, text
from tests.tiny import make_policy

LONG: list[dict[str, Any]] = [{"prompt": "1+" * i + "1=", "answer": "1"} for i in range(1, 9)]
"""Prompts of 4, 6, ..., 18 tokens."""


def test_short_prompts(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "10 tokens (median 10), in 512 of 51570 problems" in found.finding


@pytest.mark.parametrize(
    ("limit", "overlong", "verdict", "said"),
    [
        (16, "error", "problem", "1 of 8 prompts looked at are longer than"),
        (8, "drop", "warning", "5 of 8 prompts looked at are longer than"),
        (18, "error", "ok", "4 to 18 tokens"),
    ],
)
def test_too_long_for_the_run(limit: int, overlong: str, verdict: str, said: str) -> None:
    patient = patient_of(f"rollout.max_prompt_length={limit}", rows=LONG, overlong=overlong)
    found = check(patient)
    assert found.verdict == verdict
    assert said in found.finding
    assert ("rollout.max_prompt_length=18" in found.advice) == (verdict != "ok")


def test_too_long_for_the_model() -> None:
    found = check(patient_of(policy=make_policy(max_position_embeddings=30), rows=LONG))
    assert found.verdict == "problem"
    assert "more than the model's 30 positions" in text(found)


def test_a_column_that_no_checkpoint_can_keep() -> None:
    rows = [{"prompt": "1+1=", "answer": "2", "odd": object()}]
    found = check(patient_of("buffer=fifo", rows=rows))
    assert found.verdict == "problem"
    assert "column 'odd'" in text(found)
