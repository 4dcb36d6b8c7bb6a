"""The estimate against what is really there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rlkit.composition.doctor.memory as module
from rlkit.composition.doctor.memory import (
    check,
    device_memory,
    estimate,
    reference_bytes,
    saved,
    training_bytes,
)
from rlkit.composition.doctor.patient import Patient
from rlkit.config.run import LoraConfig, TrainConfig
from rlkit.models.lora import add_adapter
from tests.composition.doctor.patients import patient_of, text
from tests.tiny import make_policy


def test_a_small_model_fits(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    weights = sum(p.numel() for p in healthy.policy.model.parameters())
    assert found.figures["weights"] == 4 * weights
    assert found.figures["gradients and optimizer"] == 12 * weights


@pytest.mark.parametrize(("half", "bytes_per_weight"), [(False, 16), (True, 18)])
def test_bytes_of_a_trained_weight(half: bool, bytes_per_weight: int) -> None:
    model: Any = make_policy(half=half).model
    count = sum(p.numel() for p in model.parameters())
    weights = sum(p.nbytes for p in model.parameters())
    assert weights + training_bytes(model, TrainConfig()) == bytes_per_weight * count


def test_gradients_and_moments_are_those_of_a_step() -> None:
    patient = patient_of()
    model: Any = patient.policy.model
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    held = sum(p.grad.nbytes for p in model.parameters())
    moments = [t for s in optimizer.state.values() for t in s.values() if t.dim() > 0]
    held += sum(t.nbytes for t in moments)
    assert training_bytes(model, patient.c.config.train) == held


def test_references_count_if_they_are_copies() -> None:
    assert estimate(patient_of("anchor=none"))["references"] == 0
    found = estimate(patient_of("anchor=base", "anchor.beta=0.1"))
    assert found["references"] == found["weights"]
    assert estimate(patient_of("anchor=base", "anchor.beta=0"))["references"] == 0


def test_a_reference_counts_that_is_read_later() -> None:
    rising = "anchor.beta={kind: linear, start: 0, end: 1, steps: 9}"
    found = estimate(patient_of("anchor=base", rising))
    assert found["references"] == found["weights"]


def test_references_on_another_device_do_not_count() -> None:
    """A teacher on a second GPU, or in host memory beside a policy on the GPU."""
    patient = patient_of("anchor=base", "anchor.beta=0.1")
    reference: Any = patient.anchor.reference("base")
    assert reference_bytes(patient) > 0
    reference.model.to("meta")
    assert reference_bytes(patient) == 0


@pytest.mark.parametrize("with_adapters", [False, True])
def test_a_critic_counts_with_all_weights_that_it_trains(with_adapters: bool) -> None:
    policy, plain = make_policy(), make_policy()
    if with_adapters:
        policy.model = add_adapter(policy.model, LoraConfig(r=2))
    model: Any = plain.model
    backbone = sum(p.numel() for p in model.base_model.parameters())
    found = estimate(patient_of("algorithm=ppo", policy=policy))
    assert found["critic"] == 16 * (backbone + model.config.hidden_size + 1)
    assert (found["gradients and optimizer"] < found["weights"]) == with_adapters
    assert all(p.device == policy.device for p in policy.model.parameters()), "it stays as it is"


def test_micro_batches_grow_with_their_tokens() -> None:
    small, large = (
        estimate(patient_of(f"train.micro_batch_tokens={tokens}"))["a micro-batch"]
        for tokens in (100000, 200000)
    )
    assert large == pytest.approx(2 * small, rel=0.01)


def test_copies_of_the_weights_that_autocast_saves_count_once() -> None:
    """Each linear layer saves its weight in bfloat16, however few the tokens are."""
    patient = patient_of("model.autocast=bfloat16")
    once, per_token = saved(patient.policy, patient.answers)
    model: Any = patient.policy.model
    layers = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    copies = 2 * sum(weight.numel() for weight in layers)
    assert 0.5 * copies < once < 1.5 * copies
    plain = saved(patient_of().policy, patient_of().answers)
    assert plain[0] < 0.1 * copies and per_token < 1.5 * plain[1]


def test_one_answer_of_a_token_does_not_hide_what_is_saved_once() -> None:
    patient = patient_of("model.autocast=bfloat16")
    once, per_token = saved(patient.policy, patient.answers)
    (prompt, short), *rest = patient.answers.flat
    short = replace(short, response_ids=short.response_ids[:1])
    fewer: Any = SimpleNamespace(flat=[(prompt, short), *rest])
    assert saved(patient.policy, fewer) == pytest.approx((once, per_token), rel=0.3)


def test_an_engine_beside_the_trainer_generates_while_it_trains() -> None:
    patient = patient_of()
    in_turn = estimate(patient)
    patient.beside = True
    found = estimate(patient)
    assert found["generating"] > 0 and found["a micro-batch"] > 0
    assert found["the engine's weights"] == found["weights"]
    assert sum(found.values()) > sum(in_turn.values()) + found["weights"]


def test_a_run_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = patient_of()
    needed = sum(estimate(patient).values())
    for total, verdict in ((0.9 * needed, "problem"), (1.05 * needed, "warning")):
        monkeypatch.setattr(module, "device_memory", lambda device, total=total: total)
        found = check(patient)
        assert found.verdict == verdict, text(found)
        assert "train.micro_batch_tokens" in found.advice
        assert patient.fits == (verdict == "warning")


def test_generation_that_does_not_fit_at_once_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = patient_of(
        "algorithm=grpo", "train.prompts_per_step=512", "train.micro_batch_tokens=32"
    )
    found = estimate(patient)
    assert found["generating"] == 256 * (4 + 24) * 2 * 2 * 2 * 16 * 4
    total = sum(found.values()) - found["generating"] / 2
    monkeypatch.setattr(module, "device_memory", lambda device: total)
    told = check(patient)
    assert told.verdict == "warning" and patient.fits
    assert "Not all responses of a step can be generated at once" in told.finding


def test_the_machine_has_memory() -> None:
    assert device_memory(torch.device("cpu")) > 1e8
