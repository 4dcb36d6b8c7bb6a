"""A policy from a folder, a file or a model in memory, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.config.run import ModelConfig
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.load import load_policy, resolve_device
from rlkit.models.policy import Policy
from rlkit.models.recompute import is_checkpointed

PROMPTS = [torch.tensor([3, 12, 4, 13]), torch.tensor([5, 13]), torch.tensor([6, 7, 12, 8, 9, 13])]


RESPONSES = [torch.tensor([4, 5, 1]), torch.tensor([9, 9, 9, 9, 1]), torch.tensor([2])]


def test_a_saved_policy_loads_back_exactly(policy: Policy, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = load_policy(ModelConfig(name=str(tmp_path), device="cpu"), str(tmp_path), 1.0)
    tokens = Tokens.of(PROMPTS, RESPONSES)
    assert torch.equal(again.logp(tokens), policy.logp(tokens))
    assert not again.model.training


def test_gradient_checkpointing_gives_the_same_gradient(policy: Policy, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    tokens = Tokens.of(PROMPTS, RESPONSES)
    gradients = []
    for flag in (False, True):
        config = ModelConfig(name=str(tmp_path), device="cpu", gradient_checkpointing=flag)
        loaded = load_policy(config, str(tmp_path), 1.0)
        layers: Any = loaded.model.base_model.layers
        assert all(is_checkpointed(layer) == flag for layer in layers)
        loaded.terms(tokens).logp.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in loaded.model.parameters()]))  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "model.name=/no/such/folder: there is no folder /no/such"),
        ("./rlkitt", r"model.name=./rlkitt: there is no such folder. Did you mean 'rlkit'\?"),
        ("a/b/c", "model.name=a/b/c: there is no folder a/b"),
        ("/no/such/file.gguf", "file /no/such/file.gguf does not exist"),
        ("pkg://no_such_package/x.gguf", "package 'no_such_package' is not installed"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_policy(ModelConfig(name=name), name, 1.0)


def test_cuda_without_cuda_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"set model\.device=cpu or auto"):
        resolve_device("cuda:1")
    assert resolve_device("auto") == torch.device("cpu")


def test_a_name_is_asked_for_once_at_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, with nothing in the cache: said at once, without the libraries' retries."""

    def unreachable(self: object, name: str, timeout: float) -> None:
        asked.append(name)
        raise ConnectionError

    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="model.name=no/model cannot be loaded: .*connect"):
        load_policy(ModelConfig(name="no/model"), "no/model", 1.0)
    assert asked == ["no/model"]
