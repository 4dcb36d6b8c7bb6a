"""Groups that teach nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlkit.composition.doctor.groups import check
from rlkit.composition.doctor.patient import Patient
from tests.composition.doctor.patients import patient_of, text


def zero(completions: list[str], **columns: Any) -> list[float]:
    return [0.0 for _ in completions]


def one(completions: list[str], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def nothing(completions: list[str], **columns: Any) -> list[None]:
    return [None for _ in completions]


def only_zeros_vary(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Responses to one prompt differ; those to the other five do not."""
    return [float(i % 2) * float(p == "0+0=") for i, p in enumerate(prompts)]


def test_groups_that_differ(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "equal in 2 of 8 groups of 8" in found.finding


def test_all_groups_equal() -> None:
    found = check(patient_of(reward=zero))
    assert found.verdict == "problem"
    assert "all 6 groups of 8 (0 of them all right). There is nothing to learn" in text(found)
    assert "(6 of them all right)" in text(check(patient_of(reward=one)))


def test_equal_rewards_of_responses_cut_for_lack_of_time_prove_nothing() -> None:
    patient = patient_of(reward=zero)
    patient._made["the responses"] = replace(patient.answers, limit=2)
    found = check(patient)
    assert found.verdict == "warning"
    assert "cut at 2 tokens for lack of time" in text(found)


def test_an_advantage_that_compares_nothing_needs_no_difference() -> None:
    assert check(patient_of("advantage=reward", reward=zero)).verdict == "ok"


def test_most_groups_equal() -> None:
    found = check(patient_of(reward=only_zeros_vary))
    assert found.verdict == "warning"
    assert "5 of 6 groups" in text(found)


def test_no_reward_applies() -> None:
    found = check(patient_of(reward=nothing))
    assert found.verdict == "problem"
    assert "every reward returned None" in text(found)
