"""Responses that are cut."""

from __future__ import annotations

from dataclasses import replace

from rlkit.composition.doctor.lengths import check
from rlkit.composition.doctor.patient import Patient
from tests.composition.doctor.patients import patient_of, text


def test_finished_responses(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "None of 64 were cut at 14 tokens" in found.finding


def test_no_response_ends() -> None:
    found = check(patient_of("rollout.max_completion_length=1"))
    assert found.figures["responses"] == 48
    assert found.verdict in ("warning", "problem")
    assert "were cut at 1 tokens" in text(found)


def test_a_limit_of_the_doctors_own_is_no_finding() -> None:
    patient = patient_of("rollout.max_completion_length=24")
    patient._made["the responses"] = replace(patient.answers, limit=2)
    found = check(patient)
    assert found.verdict == "ok"
    assert "There was time for 2 of rollout.max_completion_length=24" in found.finding


def test_verdicts_by_share() -> None:
    patient = patient_of()
    answers = patient.answers
    for cut, verdict in ((0, "ok"), (20, "ok"), (30, "warning"), (48, "problem")):
        marks = iter(["length"] * cut + ["stop"] * 48)
        own = [[replace(g, finish_reason=next(marks)) for g in group] for group in answers.own]
        patient._made["the responses"] = replace(answers, own=own)
        assert check(patient).verdict == verdict, cut
