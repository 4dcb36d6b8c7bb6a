"""Weights as an engine elsewhere reads them: those of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.config.run import LoraConfig, ModelConfig
from rlkit.errors import UserError
from rlkit.models.lora import add_adapter, save_merged
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.layer_skip import LayerSkipConfig, LayerSkipRollout
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.vllm.client import Server
from rlkit.rollout.vllm.server import VLLMServerConfig, VLLMServerRollout
from rlkit.rollout.vllm.worker import checksum
from rlkit.rollout.weights import checkpoint_weights, write_config, write_weights
from tests.rollout.models import change, make_policy, requests
from tests.rollout.stand_in import drawn, install, started


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


def synced_by_vllm(policy: Policy, monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    install(monkeypatch, sleeps=True)
    engine, llm = started(policy)
    for step in range(2, 5):
        engine.sync(step)
        drawn(engine, step)
    assert llm.calls.count("take") == 4


def synced_by_servers(policy: Policy, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    served = SimpleNamespace(taken=0)

    def take(_: Server, path: str, *__: object) -> dict[str, Any]:
        served.weights = load_file(Path(path, "model.safetensors"))
        served.taken += 1
        received = {name: checksum(tensor) for name, tensor in served.weights.items()}
        return {"received": received, "compared": [], "different": []}

    monkeypatch.setattr(
        Server, "worker", lambda _, method: {"rlkit_dtype": "float32"}.get(method, 0)
    )
    monkeypatch.setattr(Server, "take", take)
    engine = VLLMServerRollout(VLLMServerConfig(sync_dir=str(folder)))
    monkeypatch.setattr(Server, "score", lambda *_: engine.probe.logp)
    engine.start(policy, seed=0)
    for step in range(2, 5):
        engine.sync(step)
    assert served.taken == 4


def synced_by_a_process(policy: Policy, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(RemoteEngine, "_send", lambda *_: None)
    engine = RemoteEngine(HFRollout(HFConfig()), "hf", ModelConfig(), ())
    engine.policy, engine.folder = policy, folder
    for step in range(1, 4):
        engine.sync(step)


def synced_by_hf(policy: Policy, _: pytest.MonkeyPatch, __: Path) -> None:
    generate(policy, HFRollout(HFConfig(max_completion_length=4, sync_every=2)))


def synced_by_layer_skip(policy: Policy, _: pytest.MonkeyPatch, __: Path) -> None:
    generate(policy, LayerSkipRollout(LayerSkipConfig(max_completion_length=4, skip=0.5)))


def saved_merged(policy: Policy, _: pytest.MonkeyPatch, folder: Path) -> None:
    for _step in range(3):
        save_merged(policy.model, folder)


def generate(policy: Policy, engine: HFRollout[Any]) -> None:
    engine.start(policy, seed=0)
    for step in range(1, 4):
        engine.generate(GenerationCall(requests(policy, 1), ("t", step, 0)))
        engine.sync(step + 1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "use",
    [
        *(synced_by_vllm, synced_by_servers, synced_by_a_process),
        *(synced_by_hf, synced_by_layer_skip, saved_merged),
    ],
)
def test_no_engine_changes_the_frozen_weights_under_adapters(
    use: Callable[[Policy, pytest.MonkeyPatch, Path], None],
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the bit, after several syncs; nor the adapters."""
    policy = make_policy()
    torch.nn.Module.to(policy.model, dtype)
    policy = Policy(add_adapter(policy.model, LoraConfig(r=4)), policy.tokenizer, 1.0)
    change(policy, "lora_", by=0.3)
    before = copy.deepcopy(policy.model.state_dict())
    use(policy, monkeypatch, tmp_path)
    after = policy.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_servers_must_compute_in_the_dtype_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Server, "worker", lambda *_: "bfloat16")
    engine = VLLMServerRollout(VLLMServerConfig(dtype="float32", addresses=("http://one:1",)))
    with pytest.raises(UserError, match="http://one:1 computes in bfloat16, .*--dtype float32"):
        engine.start(make_policy(), seed=0)
