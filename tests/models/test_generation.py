"""A generation config that contradicts itself is mended, no more than needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from rlkit.config.run import LoraConfig
from rlkit.models.generation import mend_generation_config, refusal
from rlkit.models.lora import add_adapter, save_merged
from rlkit.models.policy import Policy
from rlkit.rollout.weights import write_config
from tests.tiny import make_policy

GREEDY: dict[str, Any] = {"do_sample": False, "temperature": 0.6, "top_p": 0.9}


def contradicting(**settings: Any) -> GenerationConfig:
    """As transformers loads it from a file: with no more than a warning, here left out."""
    config = GenerationConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    assert refusal(config) is not None, "the case is not one that transformers refuses"
    return config


@pytest.mark.parametrize(
    ("given", "expected", "told"),
    [
        (GREEDY, {**GREEDY, "do_sample": True}, "with do_sample=true."),
        ({"temperature": 0.6}, {"temperature": 0.6, "do_sample": True}, "with do_sample=true."),
        ({"pad_token_id": -1, "eos_token_id": 5}, {"eos_token_id": 5}, "with no pad_token_id."),
        ({"length_penalty": 2.0, "top_k": 50}, {"top_k": 50}, "with no length_penalty."),
        (
            {**GREEDY, "output_scores": True},
            {**GREEDY, "do_sample": True},
            "with do_sample=true, no output_scores.",
        ),
        ({"streamer": 1, "eos_token_id": [1, 2]}, {"eos_token_id": [1, 2]}, "with no streamer."),
    ],
)
def test_only_what_contradicts_changes(
    given: dict[str, Any], expected: dict[str, Any], told: str, tmp_path: Path
) -> None:
    model: Any = make_policy().model
    model.generation_config = contradicting(**given)
    line = mend_generation_config(model)
    assert line is not None and line.endswith(told) and "\n" not in line
    kept = model.generation_config.to_diff_dict()
    assert {n: v for n, v in kept.items() if n != "transformers_version"} == expected
    model.generation_config.save_pretrained(tmp_path)
    assert mend_generation_config(model) is None, "what is mended stays as it is"


def test_a_sound_one_is_left_alone() -> None:
    model: Any = make_policy().model
    model.generation_config = sound = GenerationConfig(do_sample=True, temperature=0.6)
    before = dict(vars(sound))
    assert mend_generation_config(model) is None
    assert model.generation_config is sound and vars(sound) == before
    model.generation_config = None
    assert mend_generation_config(model) is None


def test_what_engines_and_merge_read_is_mended(tmp_path: Path) -> None:
    policy = make_policy()
    policy.model.generation_config = contradicting(**GREEDY)
    write_config(policy, tmp_path / "engine")
    assert GenerationConfig.from_pretrained(tmp_path / "engine").do_sample is True

    pytest.importorskip("peft")
    model: Any = make_policy().model
    model.generation_config = contradicting(**GREEDY)
    adapted = Policy(add_adapter(model, LoraConfig(r=2)), policy.tokenizer, 1.0)
    save_merged(adapted.model, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.generation_config.temperature == 0.6
    assert merged.generation_config.do_sample is True
