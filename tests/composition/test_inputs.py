"""Objects given to `rlkit.train` as settings of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlkit.composition.inputs import (
    Inputs,
    function_description,
    model_description,
    registered_reward,
)
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.registry import build, names
from tests.tiny import make_policy


@pytest.fixture(autouse=True)
def _own(own_registry: None) -> None:
    """What a test registers is gone after it."""


def length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(c)) for c in completions]


@pytest.mark.parametrize(
    ("inputs", "overrides"),
    [
        ({}, []),
        ({"model": Path("a b")}, ["model.name='a b'"]),
        (
            {"dataset": "d", "eval_dataset": Path("e")},
            ["task=jsonl", "task.path='d'", "task.eval_path='e'"],
        ),
        ({"dataset": [{"prompt": "1", "answer": "1"}]}, ["task=dataset"]),
        ({"reward": "math"}, ["reward=[math]"]),
        ({"reward": [length, "exact"]}, ["reward=[length,exact]"]),
    ],
)
def test_inputs_become_overrides(inputs: dict[str, Any], overrides: list[str]) -> None:
    assert Inputs(**inputs).overrides() == overrides


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"tokenizer": object()}, "tokenizer= goes with a model object"),
        ({"model": SimpleNamespace(config={}, named_parameters=list)}, "pass its tokenizer too"),
        ({"eval_dataset": "e"}, "eval_dataset= goes with dataset="),
        ({"dataset": "d", "eval_dataset": [{}]}, "must both be names or both be in memory"),
        ({"peft_config": SimpleNamespace(peft_type="IA3")}, "must be a peft.LoraConfig"),
    ],
)
def test_inputs_that_do_not_go_together(inputs: dict[str, Any], said: str) -> None:
    made = Inputs(**inputs)
    with pytest.raises(UserError, match=said):
        _ = made.given if {"model", "tokenizer"} & inputs.keys() else made.overrides()


def test_a_model_in_memory_is_given_and_described_by_its_weights(policy: Policy) -> None:
    inputs = Inputs(model=policy.model, tokenizer=policy.tokenizer)
    assert inputs.given.model is policy.model and inputs.given.tokenizer is policy.tokenizer
    before = model_description(policy.model)
    assert inputs.overrides() == [f"model.name='{before}'", "model.dtype=float32"]
    assert before == model_description(make_policy().model)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[0, 0] += 1
    assert model_description(policy.model) != before


def test_a_lora_config_becomes_settings() -> None:
    config = SimpleNamespace(
        peft_type=SimpleNamespace(value="LORA"),
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        target_modules={"v_proj", "q_proj"},
    )
    assert Inputs(peft_config=config).overrides() == [
        "model.lora.r=4",
        "model.lora.alpha=8",
        "model.lora.dropout=0.1",
        "model.lora.target_modules=[q_proj,v_proj]",
    ]
    config.target_modules = None
    assert Inputs(peft_config=config).overrides()[-1] == "model.lora.target_modules='all-linear'"


def test_a_function_is_registered_under_its_name_with_the_hash_of_its_source() -> None:
    def other(completions: list[str], **columns: Any) -> list[float]:
        return [0.0 for _ in completions]

    assert registered_reward(length) == "length" and "length" in names("reward")
    reward = build("reward", "length")
    assert reward.config.source == function_description(length) != function_description(other)
    assert reward([""], ["abc"], completion_ids=[[1]]) == [3.0]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"reward": 5}, "reward= has an int in it: give a reward's name, a function"),
        ({"reward": ["exact", 5]}, "reward= has an int in it"),
        ({"reward": {"exact": 1.0}}, "reward= has a dict in it"),
        ({"model": 5}, "model= is an int: give a name, a folder or a PreTrainedModel"),
        ({"model": 5, "tokenizer": 5}, "model= is an int"),
    ],
)
def test_what_is_no_input_is_told_what_to_give(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Inputs(**inputs)
