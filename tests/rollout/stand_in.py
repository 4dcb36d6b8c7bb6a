"""A stand-in for vLLM: transformers behind its calls, which are noted in order.

It is as strict as vLLM 0.32: no part may be woken that is not asleep, weights are only loaded into
memory, nothing is generated while a part sleeps, and a sleep of level 2 forgets the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import AutoConfig

from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.vllm.engine import VLLMConfig, VLLMRollout
from rlkit.rollout.vllm.worker import Arrivals
from tests.rollout.models import requests

PARTS = {"weights", "kv_cache"}


class LLM:
    """vLLM's class of that name. Each response is one token, the end of the sequence."""

    made: LLM

    def __init__(self, *, model: str, dtype: str, **arguments: Any) -> None:
        LLM.made = self
        self.arguments = {"dtype": dtype, **arguments}
        with torch.random.fork_rng():
            self.model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
        torch.nn.Module.to(self.model, getattr(torch, dtype)).train(False)
        self.calls: list[str] = []
        self.asleep: set[str] = set()
        self.forgotten = False
        self.llm_engine = SimpleNamespace(
            is_sleeping=lambda: bool(self.asleep),
            engine_core=SimpleNamespace(shutdown=lambda: self.calls.append("shutdown")),
        )

    def sleep(self, level: int) -> None:
        assert self.arguments["enable_sleep_mode"] and not self.asleep
        self.calls.append(f"sleep {level}")
        self.asleep = set(PARTS)
        if level == 2:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(torch.nan)

    def wake_up(self, tags: Sequence[str]) -> None:
        assert self.asleep >= set(tags)
        self.calls.append(f"wake {' '.join(tags)}")
        self.asleep -= set(tags)

    def collective_rpc(self, method: str, args: Sequence[Any] = ()) -> list[Any]:
        if method == "rlkit_take":
            return [self._take(*args)]
        return [0.0 if method == "rlkit_stale_head" else None]

    def _take(self, weights: Iterable[tuple[str, Tensor]]) -> Mapping[str, Any]:
        assert "weights" not in self.asleep
        self.calls.append("take")
        own = dict(self.model.named_parameters())
        arrivals = Arrivals({name: p.dtype for name, p in own.items()}, {})
        with torch.no_grad():
            for name, tensor in arrivals.read(weights):
                own[name].copy_(tensor)
        return arrivals.report(own)

    def reset_prefix_cache(self) -> bool:
        return True

    def update_weight_version(self, version: str) -> None:
        self.version = version

    def generate(self, prompts: Sequence[Mapping[str, Any]], *_: Any, **__: Any) -> list[Any]:
        assert not self.asleep
        scores = isinstance(_[0], SimpleNamespace)
        self.calls.append("probe" if scores else "generate")
        return [self._answer(prompt["prompt_token_ids"]) for prompt in prompts]

    @torch.no_grad()
    def _answer(self, ids: list[int]) -> Any:
        logp = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        entry = [{t: SimpleNamespace(logprob=float(v)) for t, v in enumerate(r)} for r in logp]
        span = SimpleNamespace(version=self.version, start=0, end=1)
        end = SimpleNamespace(
            token_ids=[1], logprobs=entry[-1:], finish_reason="stop", weight_versions=[span]
        )
        return SimpleNamespace(prompt_logprobs=[None, *entry[:-1]], outputs=[end])


def install(monkeypatch: pytest.MonkeyPatch, *, sleeps: bool) -> None:
    """Put the stand-in where rlkit imports vLLM from."""
    module, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    module.__spec__ = ModuleSpec("vllm", None)
    vars(module).update(LLM=LLM, SamplingParams=SimpleNamespace)
    platform = SimpleNamespace(is_sleep_mode_available=lambda: sleeps, is_cpu=lambda: not sleeps)
    vars(platforms)["current_platform"] = platform
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


def started(policy: Policy, **fields: object) -> tuple[VLLMRollout, LLM]:
    """An engine on the stand-in, with the calls of its start left out."""
    engine = VLLMRollout(VLLMConfig.model_validate({"max_completion_length": 4, **fields}))
    engine.start(policy, seed=3)
    return engine, LLM.made


def drawn(engine: VLLMRollout, step: int) -> float:
    """The log-prob of the end of the sequence after the first prompt, by the engine."""
    ((found,), *_) = engine.generate(GenerationCall(requests(engine.policy, 1), ("t", step, 0)))
    return float(found.logp[0])


def expected(policy: Policy) -> float:
    """The same by the policy."""
    ids = requests(policy, 1)[0].prompt.ids
    with torch.no_grad():
        return float(policy.model(ids[None]).logits[0, -1].log_softmax(-1)[1])
