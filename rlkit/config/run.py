"""The run's settings that belong to no part.

Defaults are for real models; each is written once, in this folder.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rlkit.config.against import Against
from rlkit.config.devices import DEVICE
from rlkit.config.prompts import PromptsConfig
from rlkit.config.sampling import Sampling
from rlkit.config.saving import CheckpointConfig, CompletionsConfig
from rlkit.config.turns import TurnsConfig
from rlkit.interfaces import PartConfig

Positive = Annotated[int, Field(ge=1)]
EMBEDDED = "embedded"
Packing = Literal["auto", "shared_prefix", "packed", "padded"]


class LoraConfig(PartConfig):
    """LoRA (arXiv:2106.09685): train low-rank adapters instead of the full weights, with peft."""

    r: Annotated[int, Field(ge=0)] = 0
    """Rank of the adapters; 0 = train the full weights."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapters' output is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters, in updates only; see model.dropout. 0 = none."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters; all-linear = every linear layer but the output
    layer."""


class ModelConfig(PartConfig):
    """The policy's model."""

    name: str = EMBEDDED
    """A Hugging Face name or folder, a .gguf file, `pkg://package/file.gguf` inside an installed
    package, or `embedded`: a tiny model for `task=arithmetic` that ships with rlkit, or the one for
    `environment=calculator`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the weights. Log-probs are always computed in float32. bfloat16 weights are updated
    through float32 masters: 18 bytes per trained weight with AdamW, where float32 needs 16, but
    half the memory for activations, references and frozen weights."""
    autocast: Literal["bfloat16"] | None = None
    """dtype of matrix products while the weights stay in `dtype` (torch.autocast); null = that of
    the weights."""
    device: Annotated[str, Field(pattern=DEVICE)] = "auto"
    """auto, cpu, cuda or cuda:N; auto uses CUDA if available."""
    attn_implementation: str | None = None
    """eager, sdpa or flash_attention_2; null = the default of transformers."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each layer in the backward pass: about a third more time for an
    update, and only each layer's inputs in memory. It never changes a number."""
    dropout: bool = False
    """Train with the model's own dropout (and what else its training mode does). Samples,
    log-probs, references and the critic never see dropout. In an update with dropout, this one or
    model.lora.dropout, only the gradient is taken with it: the values of the log-probs are those
    without, so that fresh data has ratio 1 in the first pass. It costs one more forward. TRL
    switches dropout off too unless asked (`disable_dropout`)."""
    tf32: bool = False
    """float32 matrix products of an NVIDIA GPU in TF32: faster, but with a mantissa of 10 bits in
    place of 23, so log-probs are as coarse as in float16 and depend on the rest of their batch, and
    fresh responses are scored once more. false = full float32."""
    deterministic: bool = False
    """Only algorithms of torch that repeat bit for bit on the same GPU
    (torch.use_deterministic_algorithms): some are slower, torch fills new memory before it is used,
    and an operation without such an algorithm stops the run. It sets
    CUBLAS_WORKSPACE_CONFIG=:4096:8 unless it is set, which comes too late if the process has used
    the GPU before. On the CPU runs repeat without it. The process's own settings of this and of
    TF32 are restored after the run."""
    lora: LoraConfig = LoraConfig()
    base_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the embedded model's warm-up: 0 ships with rlkit, others are trained once and cached.
    Other models ignore it."""

    @field_validator("dtype", "autocast", mode="before")
    @classmethod
    def _trainable(cls, value: object, info: ValidationInfo) -> object:
        if value == "float16":
            raise ValueError(
                "float16 cannot train, since small gradients become 0 in it without loss scaling; "
                "use bfloat16, or float32 weights and no autocast"
            )
        return value


class TrainConfig(PartConfig):
    """Settings of the updates; names are TRL's if the meaning is the same."""

    steps: Positive = 200
    """Training steps of the run."""
    prompts_per_step: Positive = 32
    """Groups trained per step, fresh and replayed together."""
    minibatches: Positive = 1
    """Optimizer steps per pass; must divide prompts_per_step."""
    updates_per_batch: Positive = 1
    """Passes over each step's batch (the update-to-data ratio)."""
    micro_batch_tokens: Positive | None = None
    """Prompt and response tokens per forward and backward, with padding if there is any; the
    gradient does not depend on it. null = 16384, or 2048 on the CPU, where more only take memory.
    Halved if memory runs out."""
    packing: Packing = "auto"
    """How sequences are laid out in forwards: each prompt once and its responses after it, in one
    row without padding; whole sequences in one row; or a row for each, padded. The gradient does
    not depend on it. auto = the first that fits the model's attention, if it gives the log-probs
    of single rows, else padded."""
    optimizer: Literal["adamw", "adamw_8bit", "muon", "adafactor"] = "adamw"
    """adamw; adamw_8bit = AdamW with 8-bit moments, from bitsandbytes; muon = Muon for the hidden
    matrices, with updates as large as AdamW's (arXiv:2502.16982), and AdamW for the rest;
    adafactor (arXiv:1804.04235) at the given learning rate, with neither relative steps nor first
    moments. Updates are made in float32, whatever model.dtype is."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    """Peak learning rate, whatever the optimizer."""
    lr_scale: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Factors of the learning rate by pattern: {critic.head: 10}. A weight gets that of the first
    pattern, a regular expression, found in its name: `policy.`, `critic.` or, of a loss's own
    module, `loss.`, and its name there; null = one learning rate for all."""
    lr_ess: Annotated[float, Field(gt=0, le=1)] | None = None
    """The learning rate of the policy, and of a loss's module, falls with the effective sample size
    rho of a minibatch, as in VCPO (arXiv:2602.17616): times sqrt(min(1, rho / lr_ess)), so this is
    the rho from which it is full, 1 in the paper. rho is that of the responses' unclipped ratios.
    null = off."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first moment decay."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second moment decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of matrices; norms, biases and other vectors do not decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    max_skipped_steps: Positive = 5
    """The run stops after this many optimizer steps in a row whose loss or gradient is not finite.
    Each is skipped, and its responses are written to nonfinite/."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Training steps over which the learning rate rises linearly from 0."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, or fall to 0 at the last step."""
    critic_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of the critic, if the advantage needs one; same schedule."""

    @field_validator("lr_scale")
    @classmethod
    def _are_patterns(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for pattern in value or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"train.prompts_per_step={self.prompts_per_step} is not divisible by "
                f"train.minibatches={self.minibatches}; change one of them"
            )
        return self

    @property
    def reads(self) -> frozenset[str]:
        """What updates read besides what parts do, by the names of the parts' `needs`."""
        return frozenset() if self.lr_ess is None else frozenset({"behavior"})

    def learning_rate_factor(self, step: int) -> float:
        """The share of the peak learning rate at a training step (1-based).

        step / warmup_steps up to warmup_steps; then constant, or falling along a line or half a
        cosine from 1 in the first step after the warm-up towards 0, which the step after the last
        would reach.
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
    reward: str | None = None
    """Name of the reward that says whether a response is right, by 1 or more; null = the first that
    marks correctness, or else the first that does not say that it does not."""
    problems: Positive = 256
    """How many held-out problems at most, in the task's order."""
    every: Positive | None = 50
    """Training steps between evaluations; null = only before and after."""
    samples: Positive = 1
    """Sampled responses per problem."""
    k: Positive | tuple[Positive, ...] = 1
    """pass@k is reported for this k too, or for each of a list such as [4,8], by the unbiased
    estimator over `samples`."""
    greedy: bool = True
    """Whether each problem is also answered greedily, once."""
    sampling: Sampling = Sampling()
    """How the samples are drawn, where that is not as in `rollout`; its max_completion_length is
    also that of greedy responses. Training does not see it."""
    against: Against = Against()
    """Reference responses to the held-out problems, for a win rate."""
    on: tuple[str, ...] = ()
    """Also evaluate on these, each logged as eval/<name>/...: named benchmarks (math500, aime24,
    ...; see docs/evaluation.md), files with prompts and answers, `name=file`, or tasks. A task is
    marked by its own rewards, everything else by the math reward."""
    on_samples: dict[str, Positive] | None = None
    """Sampled responses per problem of single ones of `on`, such as {aime24: 32}; the others take
    `samples`, as all do with null."""
    on_problems: Positive | None = None
    """A fair sample of this many problems of each of `on`; null = all."""
    data: str | None = None
    """The folder with the benchmarks' files, <name>.jsonl; null = the Hugging Face hub."""
    template: str | None = None
    """How benchmarks and files of `on` are put to the model: chat, plain, none, qwen2.5-math,
    deepseek-r1 or remix; null = chat if the model has a chat template, else plain."""
    key: Literal["original", "remix"] = "original"
    """Whose answers Minerva is marked with."""
    answers: Annotated[int, Field(ge=0)] | None = None
    """Of how many problems, the first in the task's order, the responses with their rewards are
    kept: in evaluations/step-N.parquet of a run, in answers.parquet of `rlkit eval`. null = of
    all, 0 = no file."""

    @property
    def ks(self) -> tuple[int, ...]:
        """Every k of pass@k, ascending, with 1."""
        return tuple(sorted({1, *((self.k,) if isinstance(self.k, int) else self.k)}))

    @model_validator(mode="after")
    def _enough(self) -> EvalConfig:
        if self.ks[-1] > self.samples:
            raise ValueError(
                f"eval.k={self.ks[-1]} needs at least as many eval.samples (now {self.samples})"
            )
        return self


class StageConfig(PartConfig):
    """A stage of a run."""

    steps: Positive
    """Training steps of the stage."""
    overrides: tuple[str, ...] = ()
    """What differs from the run's own configuration, written as on the command line."""


class RunConfig(PartConfig):
    """All settings that do not belong to a part."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Every random draw of the run derives from it."""
    output_dir: Annotated[str, Field(min_length=1)]
    """The run folder."""
    resume: str = "never"
    """never = refuse a folder that holds a run; auto = continue it from its newest complete
    checkpoint, or start from scratch if there is none; a path = continue from that checkpoint
    folder. Later checkpoints of the run are then renamed to checkpoint-N-abandoned."""
    resume_force: tuple[str, ...] = ()
    """Keys of the configuration that may differ from the checkpoint's even though they change what
    the run computes."""
    dry_run: bool = False
    """Compose, validate and print the plan, then stop without writing anything."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files with user parts."""
    stages: tuple[StageConfig, ...] = ()
    """Stages with parts and updates of their own, run one after the other on the same policy;
    train.steps is then their sum. Each starts with a new optimizer and takes its initial policy as
    base."""
    model: ModelConfig = ModelConfig()
    tools: tuple[str, ...] = ()
    """Functions that the policy may call, `./file.py:name` or `module:name`: typed, with a Google
    docstring, as in TRL. They join the environment's own tools, or need no environment."""
    turns: TurnsConfig = TurnsConfig()
    train: TrainConfig = TrainConfig()
    prompts: PromptsConfig = PromptsConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    completions: CompletionsConfig = CompletionsConfig()
