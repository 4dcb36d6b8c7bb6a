"""Weights as an engine elsewhere reads them: those of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.config.run import LoraConfig
from rlkit.models.lora import add_adapter
from rlkit.models.policy import Policy
from rlkit.rollout.weights import checkpoint_weights, write_config, write_weights
from tests.rollout.models import change, make_policy


def test_weights_are_those_of_a_checkpoint(tmp_path: Path) -> None:
    """Tied ones once: vLLM does not expect the head of a tied model."""
    tied, own = make_policy(), make_policy(tied=False)
    assert "lm_head.weight" not in dict(checkpoint_weights(tied))
    assert "lm_head.weight" in dict(checkpoint_weights(own))
    tied.model.config.quantization_config = {"quant_method": "gguf"}
    write_config(tied, str(tmp_path))
    write_weights(tied, str(tmp_path))
    assert "quantization_config" in vars(tied.model.config)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(read) is type(tied.model)
    assert not hasattr(read.config, "quantization_config")
    expected = tied.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path)("1+2")["input_ids"] == [3, 12, 4]


def test_adapters_are_added_into_the_weights() -> None:
    """W + B A alpha / r, under the plain model's names."""
    pytest.importorskip("peft")
    policy = make_policy()
    names = set(dict(checkpoint_weights(policy)))
    before = policy.model.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    settings = LoraConfig(r=4, alpha=8)
    adapted = Policy(add_adapter(policy.model, settings), policy.tokenizer, 1.0)
    change(adapted, "lora_", by=0.5)
    found = dict(checkpoint_weights(adapted))
    assert set(found) == names
    model: Any = adapted.model
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    added = layer.lora_B.default.weight @ layer.lora_A.default.weight * 2
    expected = before + added.detach()
    got = found["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
