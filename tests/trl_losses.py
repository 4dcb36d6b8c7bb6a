"""TRL's own losses on given tensors: its trainers' methods, with a stub in the trainer's place."""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch

MAX_COMPLETION_LENGTH = 100
SETTINGS: dict[str, Any] = {
    "clip_low": 0.2,
    "clip_high": 0.3,
    "delta": None,
    "beta": 0.0,
    "use_bias_correction_kl": False,
    "importance_sampling_level": "token",
    "off_policy_mask_threshold": None,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
}


class Accelerator:
    """One process."""

    num_processes = 1

    def gather(self, x: Tensor) -> Tensor:
        return x

    def reduce(self, x: Tensor, reduction: str) -> Tensor:
        return x


def trainer_of(kind: str) -> Any:
    """The trainer that has this loss."""
    if kind == "gmpo":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing TRL's experimental part warns
            from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer
        return GMPOTrainer
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    return RLOOTrainer if kind == "rloo" else GRPOTrainer


def trl_loss(
    kind: str,
    logp: Tensor,
    batch: LossBatch,
    extra: dict[str, Tensor] | None = None,
    **options: Any,
) -> Tensor:
    """TRL's loss of the same tensors. `kind` is a GRPO loss_type, "gmpo" or "rloo".

    `extra` holds further inputs of TRL's; advantages are one a response, as TRL has them.
    """
    from trl.trainer.grpo_trainer import GRPOTrainer

    unknown = options.keys() - SETTINGS.keys()
    assert not unknown, unknown
    given = SETTINGS | options
    stub = SimpleNamespace(
        **given,
        loss_type=kind,
        args=SimpleNamespace(**given, steps_per_generation=1),
        epsilon_low=given["clip_low"],
        epsilon_high=given["clip_high"],
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        use_vllm=extra is not None and "importance_sampling_ratio" in extra,
        vllm_importance_sampling_correction=True,
        max_completion_length=MAX_COMPLETION_LENGTH,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        accelerator=Accelerator(),
        _metrics={"train": defaultdict(list)},
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
    )
    ids = torch.zeros(batch.mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": batch.mask.long(),
        "advantages": batch.advantage[:, 0],
        "old_per_token_logps": batch.prox_logp,
        "old_logps": torch.where(batch.mask, batch.prox_logp, 0.0).sum(1),
        "num_items_in_batch": batch.mask.sum(),
        **(extra or {}),
    }
    before = torch.get_default_dtype()
    torch.set_default_dtype(logp.dtype)  # TRL's where(A > 0, 1.0, 1.05) takes the default type
    try:
        loss: Tensor = trainer_of(kind)._compute_loss(stub, None, inputs)
    finally:
        torch.set_default_dtype(before)
    return loss


def vllm_ratio(batch: LossBatch, mode: str, *, low: float | None, high: float) -> Tensor:
    """The weight TRL computes while it generates, [B, T] or [B, 1]: prox / behavior, bounded.

    `mode` is its vllm_importance_sampling_mode. TRL has no function for it to call.
    """
    log_ratio = torch.where(batch.mask, batch.prox_logp - batch.behavior_logp, 0.0)
    level, bound = mode.split("_")
    ratio = (log_ratio if level == "token" else log_ratio.sum(-1, keepdim=True)).exp()
    if bound == "truncate":
        return ratio.clamp(min=low, max=high)
    outside = (ratio > high) | (ratio < (low if low is not None else -torch.inf))
    return ratio.masked_fill(outside, 0.0)
