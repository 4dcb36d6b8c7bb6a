"""The run's settings that belong to no part.

Defaults are for real models and are written only here.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlkit.interfaces import PartConfig

Positive = Annotated[int, Field(ge=1)]
EMBEDDED = "embedded"


class LoraConfig(PartConfig):
    """Low-rank adapters (arXiv:2106.09685) in place of all weights, through the package peft."""

    r: Annotated[int, Field(ge=0)] = 0
    """Rank of the adapters; 0 = all weights are trained."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapters' output is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters. Above 0 the log-probs of an update are not the policy's own."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters; all-linear = every one but the output layer."""


class ModelConfig(PartConfig):
    """The policy's model."""

    name: str = EMBEDDED
    """A Hugging Face name or folder, a .gguf file, `pkg://package/file.gguf` inside an installed
    package, or `embedded`: a tiny model for `task=arithmetic` that comes with rlkit."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The weights' type. Log-probs are always computed in float32."""
    autocast: Literal["bfloat16", "float16"] | None = None
    """Matrix products in this type while the weights stay in `dtype` (torch.autocast); null = in
    the weights' own. float16 gradients may vanish: there is no loss scaling."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, cuda or cuda:N; auto takes CUDA where there is one."""
    attn_implementation: str | None = None
    """eager, sdpa or flash_attention_2; null = what transformers chooses."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    lora: LoraConfig = LoraConfig()
    base_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the embedded model's warm-up: 0 comes with rlkit, others are made once and cached.
    Other models ignore it."""


class TrainConfig(PartConfig):
    """The updates. Names are TRL's where the meaning is the same."""

    steps: Positive = 200
    """Training steps of the run."""
    prompts_per_step: Positive = 32
    """Groups trained a step, fresh and replayed together."""
    minibatches: Positive = 1
    """Optimiser steps a pass; must divide prompts_per_step."""
    updates_per_batch: Positive = 1
    """Passes over each step's batch (the update-to-data ratio)."""
    micro_batch_tokens: Positive = 16384
    """Padded prompt and response tokens of one forward and backward; the gradient does not depend
    on it. Halved where memory does not suffice."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    """Peak learning rate of AdamW."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first moment decay."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second moment decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    max_skipped_steps: Positive = 5
    """Optimiser steps in a row whose loss or gradient is not finite before the run stops; each is
    skipped, and its responses are written to nonfinite/."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Training steps over which the learning rate rises linearly from 0."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, or fall to 0 at the last step."""
    critic_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of the critic, where the advantage needs one; same schedule."""

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"train.prompts_per_step={self.prompts_per_step} does not divide into "
                f"train.minibatches={self.minibatches} equal minibatches; change one of them"
            )
        return self

    def learning_rate_factor(self, step: int) -> float:
        """The share of the peak learning rate at a training step (1-based).

        step / warmup_steps up to warmup_steps; then constant, or falling along a line or half a
        cosine from 1 in the first step after the warm-up towards 0, which the step after the last
        one would reach.
        """
        if step <= self.warmup_steps:
            return step / self.warmup_steps
        progress = (step - self.warmup_steps - 1) / max(1, self.steps - self.warmup_steps)
        if self.lr_scheduler_type == "linear":
            return 1 - progress
        cosine = self.lr_scheduler_type == "cosine"
        return 0.5 * (1 + math.cos(math.pi * progress)) if cosine else 1.0


class EvalConfig(PartConfig):
    """Evaluation on held-out problems. It always runs before and after training."""

    task: str | None = None
    """Another registered task to evaluate on; null = the held-out problems of the training task."""
    problems: Positive = 256
    """How many held-out problems, in the task's order."""
    every: Positive | None = 50
    """Training steps between evaluations; null = only before and after."""
    samples: Positive = 1
    """Sampled responses a problem, at the rollout temperature."""
    k: Positive = 1
    """pass@k is reported for this k too, by the unbiased estimator over `samples`."""

    @model_validator(mode="after")
    def _enough(self) -> EvalConfig:
        if self.k > self.samples:
            raise ValueError(
                f"eval.k={self.k} needs at least as many eval.samples (now {self.samples})"
            )
        return self


class CheckpointConfig(PartConfig):
    """What is kept to continue a run. A checkpoint always closes a run."""

    every: Positive | None = 50
    """Training steps between checkpoints; null = only at the end."""
    keep: Positive = 2
    """How many of the newest checkpoints stay on disk, besides the one of the best evaluation."""
    on_error: Literal["continue", "stop"] = "continue"
    """What the run does when a checkpoint cannot be written (a full disk): say so and go on, or
    stop. What was saved before stays in either case."""


class StageConfig(PartConfig):
    """A stage of a run."""

    steps: Positive
    """Training steps of the stage."""
    overrides: tuple[str, ...] = ()
    """What differs from the run's own configuration, written as on the command line."""


class RunConfig(PartConfig):
    """Everything that is not a part's."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Every random draw of the run derives from it."""
    output_dir: Annotated[str, Field(min_length=1)]
    """The run's folder."""
    resume: str = "never"
    """never = refuse a folder that holds a run; auto = continue it from its newest complete
    checkpoint, or start over when there is none; a path = continue from that checkpoint folder."""
    resume_force: tuple[str, ...] = ()
    """Keys of the configuration that may differ from the checkpoint's although they change what the
    run computes."""
    dry_run: bool = False
    """Compose, validate and print the plan, then stop without writing anything."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files with user parts."""
    stages: tuple[StageConfig, ...] = ()
    """Stages with parts and updates of their own, one after the other on the same policy; with
    stages train.steps is their sum. Each begins with a new optimiser and is its own base."""
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
