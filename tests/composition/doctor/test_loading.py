"""What is said of the model."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.loading import check, count
from rlkit.composition.doctor.patient import Patient
from rlkit.errors import UserError
from tests.composition.doctor.patients import patient_of, text
from tests.compositions import composed
from tests.tiny import make_policy


def test_a_model_that_loads(healthy: Patient) -> None:
    found = check(healthy)
    assert found.verdict == "ok"
    assert "LlamaForCausalLM with 166,208 parameters in float32 on cpu" in found.finding
    assert found.figures == {"parameters": 166208, "trained": 166208, "dtype": "float32"}


def test_frozen_weights_are_told() -> None:
    policy = make_policy()
    policy.model.get_input_embeddings().weight.requires_grad_(False)
    found = check(patient_of(policy=policy))
    assert found.verdict == "warning"
    assert "512 parameters are frozen" in text(found)


def test_a_model_that_does_not_exist() -> None:
    patient = Patient(composed("model.name=./nowhere", "reward=[exact]"), 60.0)
    with pytest.raises(UserError, match="there is no such folder"):
        check(patient)


def test_counts_in_words() -> None:
    assert [count(512), count(134_515_008), count(7_600_000_000)] == [
        "512",
        "134.5 million",
        "7.6 billion",
    ]
