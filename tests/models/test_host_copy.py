"""A copy in host memory: what it holds visits the device of a forward, and is home again after it.

The meta device stands for a GPU here: it has no numbers, but refuses to mix with the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlkit.interfaces import Tokens
from rlkit.models.host_copy import copy_to, units, visit
from tests.tiny import make_dropping_model, make_policy

CPU, META = torch.device("cpu"), torch.device("meta")
IDS = torch.tensor([[3, 12, 4, 13]])
THERE = {
    "input_ids": IDS.to(META),
    "attention_mask": torch.zeros(1, 1, 4, 4, device=META),  # one that nothing has to look into
    "use_cache": False,
}


def tied() -> PreTrainedModel:
    return make_policy(tie_word_embeddings=True).model


MODELS = {"gpt2": make_dropping_model, "llama": lambda: make_policy().model, "tied": tied}


def held(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_is_on_the_device_and_the_weights_are_home_after_it(name: str) -> None:
    model = MODELS[name]().train(False)
    before = held(model)
    visit(model, META)
    with torch.no_grad():
        logits = model(**THERE, logits_to_keep=2).logits
    assert logits.device == META and logits.shape[1] == 2
    assert held(model).keys() == before.keys()
    assert all(value is before[key] for key, value in held(model).items())


def test_only_one_layer_is_away_at_a_time() -> None:
    model = make_policy(num_hidden_layers=4).model.train(False)
    parts = list(units(model))
    away: list[int] = []

    def look(*_: Any) -> None:
        away.append(sum(any(x.device == META for x in held(part).values()) for part in parts))

    visit(model, META)
    for part in parts:
        part.register_forward_pre_hook(look)
    with torch.no_grad():
        model(**THERE)
    assert away == [1] * len(parts) and len(parts) == 4 + len(["embed", "rotary", "norm", "head"])


def test_the_weights_come_home_from_a_forward_that_fails() -> None:
    def fail(*_: Any) -> None:
        raise ValueError("inside a layer")

    model = make_policy().model.train(False)
    visit(model, META)
    model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(ValueError, match="inside a layer"):
        model(**THERE)
    assert all(x.device == CPU for x in held(model).values())


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_on_another_device_ties_what_is_tied_and_trains_nothing(name: str) -> None:
    model = MODELS[name]()
    there = copy_to(model, META)
    assert all(x.device == META for x in held(there).values())
    assert held(there).keys() == held(model).keys()
    assert not any(p.requires_grad for p in there.parameters())
    again = copy_to(model, CPU)
    for key, value in held(again).items():
        assert torch.equal(value, held(model)[key]) and value is not held(model)[key]


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True}])
def test_a_copy_in_host_memory_gives_the_same_log_probs(settings: dict[str, Any]) -> None:
    policy = make_policy(**settings)
    torch.nn.Module.to(policy.model, "cuda")
    tokens = Tokens.of([IDS[0]], [torch.tensor([4, 5, 1])])
    kept = policy.at(1.0, "cpu").freeze()
    assert kept.model.device == CPU
    assert torch.equal(kept.logp(tokens), policy.freeze().logp(tokens))
