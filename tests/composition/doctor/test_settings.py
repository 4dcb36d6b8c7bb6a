"""Whether samples are the policy's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.settings import check, excess
from rlkit.interfaces import Tokens
from rlkit.rollout.base import Generation, GenerationCall
from tests.composition.doctor.patients import Changing, patient_of, text
from tests.tiny import make_policy


def sampled_at(temperature: float) -> object:
    """An engine that samples at another temperature and reports log-probs at the run's."""

    def changed(
        engine: Changing, call: GenerationCall, groups: list[list[Generation]]
    ) -> list[list[Generation]]:
        from rlkit.rollout.hf import HFRollout

        config = engine.config
        object.__setattr__(engine, "config", config.model_copy(update={"temperature": temperature}))
        answers = HFRollout.generate(engine, call)
        object.__setattr__(engine, "config", config)
        policy = engine.policy
        return [
            [replace(g, logp=policy.logp(Tokens.of([r.ids], [g.response_ids]))[0]) for g in group]
            for r, group in zip(call.requests, answers, strict=True)
        ]

    return changed


def test_surprise_less_entropy_of_a_fair_coin() -> None:
    half = torch.full((8,), math.log(0.5))
    assert excess(half, -half) == (0.0, 0.0)
    mean, error = excess(torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 1.0]))
    assert (mean, error) == pytest.approx((1.0, 1.0))


def test_samples_of_the_policy(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "as surprising as a sample of the policy should be" in found.finding


@pytest.mark.parametrize(("temperature", "said"), [(0.3, "sharper"), (3.0, "flatter")])
def test_samples_of_another_temperature_are_found(temperature: float, said: str) -> None:
    found = check(patient_of(change=sampled_at(temperature)))  # type: ignore[arg-type]
    assert found.verdict == "problem"
    assert f"the engine samples {said}" in text(found)


def test_truncation_is_a_warning() -> None:
    found = check(patient_of("rollout.top_p=0.9"))
    assert found.verdict == "warning"
    assert "top_p 0.9" in found.finding


def test_what_the_generation_config_says_otherwise_is_told() -> None:
    policy = make_policy()
    policy.model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.1
    )
    found = check(patient_of(policy=policy))
    assert "temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.1" in found.finding
    assert found.verdict == "ok"
