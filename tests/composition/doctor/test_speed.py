"""What was measured, scaled up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.speed import check
from tests.composition.doctor.patients import patient_of


def test_seconds_of_a_step_and_of_the_run() -> None:
    patient = patient_of(
        "algorithm=grpo", "train.steps=10", "eval.every=null", "train.updates_per_batch=3"
    )
    answers, step = patient.answers, patient.step
    tokens = answers.tokens
    patient._made["the responses"] = replace(answers, seconds=float(tokens))  # one a second
    patient._made["the trial step"] = replace(step, prepare_seconds=1.0, update_seconds=2.0)
    found = check(patient).figures
    mean, responses = tokens / 48, 32
    generating = responses * mean
    training = responses / len(step.batch.samples) * (1.0 + 3 * 2.0)
    assert found["generated_tokens_per_second"] == pytest.approx(1.0)
    assert found["seconds_per_step"] == pytest.approx(generating + training)
    evaluation = 6 * 2 * mean
    assert found["seconds_per_evaluation"] == pytest.approx(evaluation)
    run = 10 * (generating + training) + 2 * evaluation
    assert found["seconds_per_run"] == pytest.approx(run)


def test_without_a_step_only_generation_is_told(healthy: Patient) -> None:
    patient = Patient(healthy.c, 60.0)
    patient._made, patient.fits = dict(healthy._made), False
    patient._made["the responses"] = healthy.answers
    found = check(patient)
    assert "trains" not in found.finding
    assert "trained_tokens_per_second" not in found.figures
