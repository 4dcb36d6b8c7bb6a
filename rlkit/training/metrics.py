"""Figures of a step that no part computes, and the completions as they are written down."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch

from rlkit.batch import Group
from rlkit.training.prepare import TrainBatch


def data_metrics(batch: TrainBatch, step: int) -> dict[str, float]:
    """How fresh the trained batch is; ages are in training steps since a response was generated."""
    ages = [step - sample.step for sample in batch.samples]
    return {
        "buffer/fresh_fraction": ages.count(0) / len(ages),
        "buffer/age_mean": sum(ages) / len(ages),
        "buffer/age_max": float(max(ages)),
    }


def completion_rows(groups: Sequence[Group], step: int, tokenizer: Any) -> list[dict[str, Any]]:
    """One row a trained response: prompt, response, rewards, age."""
    return [
        {
            "prompt_id": group.prompt.prompt_id,
            "prompt": group.prompt.text_or_messages,
            "response": tokenizer.decode(sample.response_ids, skip_special_tokens=True),
            "reward": sample.reward,
            "rewards": dict(sample.rewards),
            "age": step - sample.step,
            "finish_reason": sample.finish_reason,
        }
        for group in groups
        for sample in group.samples
    ]


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: the device's on CUDA, the process's resident set elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def staleness(batch: TrainBatch, step: int) -> dict[str, float]:
    """How old the weights are that sampled the batch's tokens, in training steps.

    Over the policy's own tokens (`policy_version` of each): mean and maximum of step - version.
    Status: our choice (the count of AReaL and prime-rl, a token at a time).
    """
    own = [sample.policy_version for sample in batch.samples if sample.source != "expert"]
    ages = step - torch.cat(own).float() if own else torch.zeros(0)
    if not len(ages):
        return {}
    return {
        "off_policy/staleness_mean": float(ages.mean()),
        "off_policy/staleness_max": float(ages.max()),
    }
