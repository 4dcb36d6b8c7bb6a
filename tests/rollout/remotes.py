"""Engines in processes of their own, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlkit.config.run import ModelConfig
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.remote import RemoteEngine
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream

ROWS = [{"prompt": f"{i}+{i}=", "answer": "1"} for i in range(40)]


def generation(ids: Sequence[int], version: int, **extras: torch.Tensor | float) -> Generation:
    return Generation(
        response_ids=torch.tensor(ids, dtype=torch.int64),
        logp=torch.linspace(-1, 0, len(ids)),
        policy_version=torch.full((len(ids),), version, dtype=torch.int32),
        finish_reason="stop",
        extras=extras,
    )


def remote(policy: Policy, **fields: object) -> RemoteEngine:
    inner = HFRollout(HFConfig(**{"max_completion_length": 6, "num_generations": 3, **fields}))
    made = RemoteEngine(inner, "hf", ModelConfig(device="cpu"), ())
    made.start(policy, seed=3)
    return made


def ids(groups: Sequence[Sequence[Generation]]) -> list[list[list[int]]]:
    return [[g.response_ids.tolist() for g in group] for group in groups]


def stream(policy: Policy) -> PromptStream:
    return PromptStream(Prompts("train", ROWS, policy.tokenizer), 0, 3, 6)
