"""What is wrong with a step is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.still_step import check
from tests.composition.doctor.patients import each, patient_of, text


def zero(completions: list[str], **columns: Any) -> list[float]:
    return [0.0 for _ in completions]


def test_a_good_step(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "the ratio is 1" in found.finding and "No weight changed" in found.finding
    assert found.figures["clip_fraction"] == 0


def test_fresh_data_that_look_off_policy() -> None:
    found = check(patient_of(change=each(lambda logp: logp - 0.1)))
    assert found.verdict == "problem"
    assert "fresh data look off-policy" in text(found)


def test_equal_rewards_are_told_and_replaced_so_that_there_is_a_gradient() -> None:
    found = check(patient_of("algorithm=grpo", "anchor=none", reward=zero))
    assert found.verdict == "ok"
    assert "0 and 1 in turn were taken in their place" in found.finding
    assert float(found.figures["grad_norm"]) > 0


def test_advantages_of_zero_are_told() -> None:
    patient = with_metrics(grad_norm=0.0)
    batch = patient.step.batch
    loss = replace(batch.loss, advantage=batch.loss.advantage * 0)
    patient._made["the trial step"] = replace(patient.step, batch=replace(batch, loss=loss))
    found = check(patient)
    assert found.verdict == "warning"
    assert "all advantages are 0" in text(found)


def with_metrics(**metrics: float) -> Patient:
    patient = patient_of()
    named = {f"policy/{name}": value for name, value in metrics.items()}
    result = replace(patient.step.result, metrics={**patient.step.result.metrics, **named})
    patient._made["the trial step"] = replace(patient.step, result=result)
    return patient


@pytest.mark.slow
def test_clipping_a_zero_gradient_and_skipped_steps() -> None:
    assert "10.0% of the tokens are clipped" in text(check(with_metrics(clip_fraction=0.1)))
    assert "though advantages are not 0" in text(check(with_metrics(grad_norm=0.0)))
    assert "is not finite" in text(check(with_metrics(skipped_steps=2.0)))


def test_a_weight_that_changes() -> None:
    patient = patient_of()
    anchor, moved = patient.anchor, []

    def move(policy: Any, step: int) -> None:
        weight = next(policy.model.parameters())
        moved.append(1)
        with torch.no_grad():
            weight[0, 0] += 1e-3

    anchor.before_step = move  # type: ignore[method-assign]
    found = check(patient)
    assert moved
    assert found.verdict == "problem"
    assert "1 weights changed, the first model.embed_tokens.weight" in text(found)
