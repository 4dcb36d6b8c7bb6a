"""Each piece is made once; one that cannot be made fails once, and is missing afterwards."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.patient import Patient, Unavailable
from rlkit.errors import UserError
from tests.composition.doctor.patients import patient_of


def test_pieces_are_made_once() -> None:
    patient = patient_of()
    assert patient.policy is patient.policy
    assert patient.answers is patient.answers
    assert patient.took["the model"] > 0


def test_what_failed_is_told_once_and_then_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    patient, asked = patient_of(), []

    def refuse() -> None:
        asked.append(1)
        raise UserError("no model")

    monkeypatch.setattr(patient, "_load", refuse)
    with pytest.raises(UserError, match="no model"):
        _ = patient.policy
    with pytest.raises(Unavailable, match="the model could not be had"):
        _ = patient.policy
    with pytest.raises(Unavailable, match="the model could not be had"):
        _ = patient.answers
    assert len(asked) == 1


def test_a_step_that_does_not_fit_is_not_tried(healthy: Patient) -> None:
    patient = Patient(healthy.c, 60.0)
    patient.fits = False
    with pytest.raises(Unavailable, match="more memory"):
        _ = patient.step


def test_rewarded_groups_are_the_answers_with_their_rewards() -> None:
    patient = patient_of()
    groups = patient.collected.groups
    assert [len(g.samples) for g in groups] == [len(own) for own in patient.answers.own]
    assert {s.reward for g in groups for s in g.samples} <= {0.0, 1.0}
