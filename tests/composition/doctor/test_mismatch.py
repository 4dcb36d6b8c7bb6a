"""Engine against trainer."""

from __future__ import annotations

from rlkit.composition.doctor.mismatch import check
from rlkit.composition.doctor.patient import Patient
from tests.composition.doctor.patients import each, patient_of, text


def test_an_engine_with_the_trainers_log_probs_agrees(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert float(found.figures["max"]) < 1e-4
    assert found.figures["rounding"] == 1e-3


def test_a_perturbed_engine_is_found() -> None:
    found = check(patient_of(change=each(lambda logp: logp + 0.02)))
    assert found.verdict == "problem"
    assert "Engine and trainer differ" in text(found)
    assert 0.0199 < float(found.figures["mean"]) < 0.0201


def test_what_is_hardly_more_than_rounding_is_a_warning() -> None:
    found = check(patient_of(change=each(lambda logp: logp + 0.002)))
    assert found.verdict == "warning"
