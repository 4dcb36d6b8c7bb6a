"""The trainer's log-probs of the engine's responses."""

from __future__ import annotations

import torch

from rlkit.composition.doctor.scored import LEAST, score_answers
from tests.composition.doctor.patients import each, patient_of


def test_they_are_the_policys_own() -> None:
    patient = patient_of(change=each(lambda logp: logp - 0.5))
    scored = patient.scored
    assert torch.allclose(scored.difference[scored.mask], torch.tensor(-0.5), atol=1e-5)
    assert not scored.difference[~scored.mask].any()
    assert torch.allclose(scored.own.logp, patient.policy.logp(scored.tokens), atol=1e-6)
    assert torch.allclose(scored.again, torch.tensor(0.5), atol=1e-5)


def test_those_scored_are_the_first_whatever_they_hold() -> None:
    patient = patient_of()
    few = score_answers(patient, 0.0)
    assert len(few.answers) == LEAST
    expected = patient.answers.flat[:LEAST]
    assert [id(g) for _, g in few.answers] == [id(g) for _, g in expected]
