"""All checks together."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.check import Check
from rlkit.composition.doctor.examine import CHECKS, examine, one
from rlkit.composition.doctor.patient import Patient, Unavailable
from rlkit.errors import UserError
from tests.compositions import composed


def test_nothing_is_wrong_with_the_embedded_model(healthy: Patient) -> None:
    found = list(examine(healthy))
    assert [check.name for check in found] == [name for name, _ in CHECKS]
    assert {check.verdict for check in found} == {"ok"}, [c for c in found if c.verdict != "ok"]


@pytest.mark.parametrize(
    ("error", "verdict", "finding"),
    [
        (UserError("lower\nx"), "problem", "lower x."),
        (ZeroDivisionError("by zero"), "problem", "ZeroDivisionError: by zero"),
        (Unavailable("the model is missing"), "warning", "Not checked: the model is missing."),
    ],
)
def test_what_a_check_raises_is_its_finding(
    healthy: Patient, error: Exception, verdict: str, finding: str
) -> None:
    def raises(patient: Patient) -> Check:
        raise error

    found = one("x", raises, healthy)
    assert (found.verdict, found.finding) == (verdict, finding)


def test_a_missing_model_is_told_once_and_the_others_still_run() -> None:
    patient = Patient(composed("model.name=./nowhere", "reward=[exact]"), 60.0)
    found = {check.name: check for check in examine(patient)}
    assert found["model"].verdict == "problem"
    assert found["data"].verdict == "ok"
    assert "gold answers" in found["reward"].finding
    rest = [c for name, c in found.items() if name not in ("model", "data", "reward")]
    assert {c.verdict for c in rest} == {"warning"}
    assert all(c.finding.startswith("Not checked: the model could not be had") for c in rest)
