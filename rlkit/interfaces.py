"""The abstract parts a method is composed of.

A part is a frozen pydantic config (`Part.Config`) and a class that reads `self.config.x` at each
call, never a copy made in `__init__`: schedules replace the config of a running part. The maths
stands above both as a pure function.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import (
    AdvantageBatch,
    AdvantageOutput,
    Corrected,
    Group,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Prompt,
    Request,
    Sample,
    Score,
    Term,
)
from rlkit.environment import (
    Reward,
    RewardConfig,
    Task,
    TaskConfig,
    TaskData,
    Tracker,
)
from rlkit.ops import (
    Aggregation,
    Clamps,
    KLEstimator,
    adaptive_coefficient,
    kl_penalty,
    kl_value,
    masked_log_ratio,
    masked_ratio,
    ratio_weighted,
    scaled_gradient,
    stream_rng,
)
from rlkit.part import C, Part, PartConfig, State

__all__ = [
    "AC",
    "EVENTS",
    "LC",
    "AdvantageEstimator",
    "AnchorConfig",
    "AnchorPolicy",
    "C",
    "Correction",
    "Event",
    "FreezablePolicy",
    "LossConfig",
    "Part",
    "PartConfig",
    "Phase",
    "PolicyLoss",
    "Progress",
    "PromptSource",
    "Reference",
    "ReincarnationSchedule",
    "ReplayBuffer",
    "Reward",
    "RewardConfig",
    "State",
    "Task",
    "TaskConfig",
    "TaskData",
    "Tracker",
]


class LossConfig(PartConfig):
    """Fields every policy loss has."""

    aggregation: Aggregation = "token-mean"
    """How per-token terms become one number (verl's names), normalised over the whole minibatch."""
    norm_length: Annotated[int, Field(ge=1)] | None = None
    """Constant length of seq-mean-token-sum-norm; null = rollout.max_completion_length."""
    log_ratio_clamp: Annotated[float, Field(gt=0)] | None = 20.0
    """Log-ratios are clamped to [-c, c] before exp, with zero gradient outside; null = no clamp."""
    count_empty_rows: bool = False
    """Whether responses without a valid token count in the denominators of sequence means."""


LC = TypeVar("LC", bound=LossConfig, default=LossConfig)


class PolicyLoss(Part[LC]):
    """Maps the policy's log-probs and a batch to the terms a step minimises.

    `needs` names what is read besides the log-probs: "behavior", "prox", "entropy",
    "anchor:<name>". Only the forwards named there are computed. `scope` says which rows must be
    seen together: "token" (each row alone), "group" or "minibatch" (batch-wide statistics of the
    policy's log-probs).
    """

    Config: ClassVar[type[PartConfig]] = LossConfig
    scope: ClassVar[Literal["token", "group", "minibatch"]] = "token"
    needs: ClassVar[frozenset[str]] = frozenset()
    accepts_expert: ClassVar[bool] = False
    advantages: ClassVar[tuple[str, ...]] = ()
    """Advantage parts the method is defined with, where its baseline is its own; another one is
    warned of at the start of a run. Empty = any."""

    @abstractmethod
    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """The loss's terms and unreduced metrics for these rows."""

    def ratio(self, logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """exp(logp - other) [B, T], clamped by `log_ratio_clamp`, 1 at masked positions."""
        return masked_ratio(logp, other, mask, self.config.log_ratio_clamp)


class Correction(Part[C]):
    """A detached weight or mask on the policy terms (truncated importance sampling, filters).

    Corrections are applied in list order.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Literal["token", "group", "minibatch"]] = "token"
    """Which rows must be seen together, as for a loss. A mask that depends on the policy's
    log-probs needs "minibatch", since it changes the counts of the aggregation."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch, possibly with a smaller mask, and the weight of each token.

        `policy` is detached. By default neither changes.
        """
        return Corrected(batch=batch, weight=torch.ones_like(policy.logp))

    def terms(self, policy: PolicyTerms, batch: LossBatch) -> Sequence[Term]:
        """Terms to add to the loss; none by default. `policy` is differentiable here."""
        return ()


# --- advantages


class AdvantageEstimator(Part[C]):
    """Turns the rewards of a whole step's batch into advantages.

    `needs` names the log-probs that are read, as for a loss: "behavior", "prox".
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    needs_critic: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False
    min_group: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and returns, [B, T]."""

    def value_loss(
        self, values: Tensor, old_values: Tensor, returns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-token critic loss [B, T] and a 0/1 clip indicator [B, T].

        By default the squared error, never clipped.
        """
        return 0.5 * (values - returns) ** 2, values.new_zeros(values.shape)


class PromptSource(Protocol):
    """Where a buffer's plan takes prompts from."""

    num_generations: int
    max_completion_length: int

    def take(self, n: int) -> list[Prompt]:
        """The next n prompts of the data order."""
        ...

    def get(self, prompt_id: str) -> Prompt:
        """A prompt by its id."""
        ...

    def prompt(self, prompt_id: str, row: Mapping[str, object]) -> Prompt:
        """A row with a "prompt" and further columns, encoded as the task's own are."""
        ...

    def response(self, text: str) -> Tensor:
        """The token ids of a response the policy could have written, with its end: [T] int64."""
        ...


class ReplayBuffer(Part[C]):
    """Decides what is generated, what is trained on, and what is kept.

    `batch` is always `train.prompts_per_step`, the number of groups a step trains on.
    """

    seed: int = 0
    """The run's seed, set by the run; `rng(step)` derives from it."""
    folder: Path | None = None
    """A folder of the buffer's own for what it keeps on disk, set by the run; None = a temporary
    one."""
    writes: bool = True
    """Whether it writes to that folder; of several processes, which all hold the same groups, the
    first alone does, and the others read."""
    kept_states: int = 4
    """How many of its last states must stay loadable, set by the run: those of the checkpoints it
    keeps, of one being written, and of one that a run which was then stopped had begun."""
    gives_expert: bool = False
    """Whether its batches hold demonstrations, which not every loss can use."""

    def fresh_share(self, batch: int) -> int:
        """How many groups to generate this step; the rest of the batch is replayed."""
        return batch

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """What to generate: by default the fresh share, on new prompts.

        Asked again while groups are missing.
        """
        return [
            Request(prompt=prompt, n=prompts.num_generations)
            for prompt in prompts.take(self.fresh_share(batch))
        ]

    def scores_wanted(self, step: int) -> list[Sample]:
        """Stored samples the current policy should score before `build`, without gradient."""
        return []

    @abstractmethod
    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """What is trained this step.

        It may merge, replace or add groups; fewer than `batch` is legal.
        """

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Take the scores of wanted and of trained samples, by sample_id."""

    @abstractmethod
    def add(self, fresh: list[Group], step: int) -> None:
        """Keep this step's fresh groups for later steps."""

    def stats(self) -> dict[str, float]:
        """Further figures, logged as buffer/<name>."""
        return {}

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    @abstractmethod
    def __len__(self) -> int:
        """Stored responses."""

    def rng(self, step: int) -> np.random.Generator:
        """The buffer's generator of a step: stateless, so that a resumed run draws the same."""
        return stream_rng(self.seed, "buffer", step)


class Reference(Protocol):
    """A frozen policy an anchor owns."""

    def state_dict(self) -> State:
        """Its weights (for a checkpoint)."""
        ...


class FreezablePolicy(Protocol):
    """What an anchor sees of the policy."""

    def freeze(self) -> Reference:
        """A frozen copy of the policy as it is now."""
        ...

    def restore(self, state: State) -> Reference:
        """A frozen policy with the weights of a `Reference.state_dict()`."""
        ...


class AnchorConfig(PartConfig):
    """Fields every anchor with a KL penalty has."""

    beta: Annotated[float, Field(ge=0)] = 1e-3
    """Coefficient of the penalty; 0 = no penalty and no reference forwards."""
    value_estimator: KLEstimator = "k3"
    """What the penalty's value is: k1 = log r, k2 = (log r)^2/2, k3 = 1/r - 1 + log r, with r =
    pi/reference. On samples of pi, k1 and k3 estimate KL(pi||ref) without bias, k2 with bias."""
    gradient_estimator: KLEstimator = "k2"
    """Whose derivative the gradient is. On samples of pi: k2 gives the gradient of KL(pi||ref), k3
    that of the forward KL(ref||pi), k1 only zero-mean noise (arXiv:2510.01555). On replayed samples
    none of them is exact unless `importance_weight` is set."""
    importance_weight: bool = False
    """Multiply the gradient by the detached ratio pi/behavior, which makes k2 the gradient of
    KL(pi||ref) on replayed samples too. ReMix (arXiv:2507.06892) does not say whether it does;
    false keeps the weight at 1."""
    skip_zero_advantage: bool = True
    """Leave groups whose advantages are all zero out of the penalty, as arXiv:2505.22257 (Eq. 8)
    does: without a reward signal the penalty would be their only push. false = TRL's and
    DeepSeekMath's behaviour."""
    bias_correction: bool = False
    """Multiply the penalty by the ratio pi/prox, differentiated too: the unbiased estimate of
    DeepSeek-V3.2 (arXiv:2512.02556), TRL's `use_bias_correction_kl`."""
    bias_correction_cap: Annotated[float, Field(gt=0)] | None = None
    """Upper bound of that ratio (Trinity-RFT's corrected_k3: 2); null = none."""
    log_ratio_clamp: Annotated[float, Field(gt=0)] | None = 20.0
    """The value's log-ratio is clamped to [-c, c]; null = no clamp. A gradient by another
    estimator is not."""
    value_clamp: Annotated[float, Field(gt=0)] | None = None
    """A token's value is clamped to [-c, c] (verl's low_var_kl: 10); null = no clamp."""
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """Moves the coefficient after each step so that `anchor/kl` comes near this value
    (arXiv:1909.08593); null = a constant beta."""
    horizon: Annotated[int, Field(ge=1)] = 40
    """Steps over which an error of the KL is corrected, if target_kl is set. The source counts
    10,000 responses, which is 40 steps of 256."""
    placement: Literal["loss", "reward"] = "loss"
    """"loss" adds the penalty to the loss; "reward" subtracts beta * k1 from the token rewards
    (PPO's classic form)."""


AC = TypeVar("AC", bound=AnchorConfig, default=AnchorConfig)


class AnchorPolicy(Part[AC]):
    """Holds the policy to one or several frozen references, which it owns."""

    Config: ClassVar[type[PartConfig]] = AnchorConfig
    proximal: str | None = None
    """The reference that replaces pi_k in `prox_logp`, if any."""
    read_by_loss: frozenset[str] | None = None
    """References that the loss reads, set by the run; None = not known, which counts as read."""
    factor: float = 1.0
    """What `target_kl` has multiplied beta with so far; part of the state."""

    @property
    def placement(self) -> Literal["loss", "reward"]:
        """Where the penalty enters."""
        return self.config.placement

    @abstractmethod
    def weights(self, step: int) -> Mapping[str, float]:
        """Reference name -> its share of the penalty at this step."""

    def references(self, step: int) -> tuple[str, ...]:
        """The names whose log-probs this step needs: those with a weight, if there is a penalty."""
        if self.config.beta == 0:
            return ()
        return tuple(name for name, weight in self.weights(step).items() if weight != 0)

    @abstractmethod
    def reference(self, name: str) -> Reference | None:
        """The frozen policy of that name.

        None stands for pi_k itself (the policy at the start of the step).
        """

    def number(self, name: str) -> int | None:
        """Which policy the name stands for now, counted; None = one that moves.

        Log-probs under a numbered one are kept with the samples until the number changes.
        """
        return None

    def penalty(self, logp: Tensor, batch: LossBatch, step: int) -> Tensor:
        """beta * sum_name weight_name * KL_name, [B, T]: value and gradient by the two estimators.

        In the reward the value is k1 whatever the estimator, since k2 and k3 give a wrong gradient
        there.
        """
        c, weights = self.config, self.weights(step)
        total = logp.new_zeros(logp.shape)
        for name in self.references(step):
            total = total + weights[name] * kl_penalty(
                logp,
                batch.anchor_logp[name],
                batch.mask,
                value="k1" if c.placement == "reward" else c.value_estimator,
                gradient=c.gradient_estimator,
                clamps=Clamps(c.log_ratio_clamp, c.value_clamp),
            )
        if c.importance_weight:
            ratio = masked_ratio(logp.detach(), batch.behavior_logp, batch.mask, c.log_ratio_clamp)
            total = scaled_gradient(total, ratio)
        if c.bias_correction and c.placement == "loss":
            moved = masked_log_ratio(logp, batch.prox_logp, batch.mask)
            total = ratio_weighted(total, moved, clamp=c.log_ratio_clamp, cap=c.bias_correction_cap)
        return c.beta * self.factor * total

    def metrics(self, logp: Tensor, batch: LossBatch, step: int) -> dict[str, Tensor]:
        """Unreduced KL values [B, T] for the log: `kl` (the weighted sum) and `kl_<name>`."""
        weights, out = self.weights(step), {"kl": logp.new_zeros(logp.shape)}
        for name in self.references(step):
            out[f"kl_{name}"] = kl_value(
                logp,
                batch.anchor_logp[name],
                batch.mask,
                self.config.value_estimator,
                Clamps(self.config.log_ratio_clamp, self.config.value_clamp),
            )
            out["kl"] = out["kl"] + weights[name] * out[f"kl_{name}"]
        return out

    def before_step(self, policy: FreezablePolicy, step: int) -> None:
        """Called after the step's log-probs are taken and before its update."""

    def after_step(self, policy: FreezablePolicy, step: int, metrics: Mapping[str, float]) -> None:
        """Called after the step's update; moves the coefficient if there is a `target_kl`."""
        c = self.config
        if c.target_kl is not None and "anchor/kl" in metrics:
            self.factor = adaptive_coefficient(
                self.factor, metrics["anchor/kl"], 1, target=c.target_kl, horizon=c.horizon
            )

    @abstractmethod
    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base.

        Called once before the first step, and at each rebirth.
        """

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`; the policy rebuilds the frozen references."""


# ---- schedules


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the run is, before step `step` begins."""

    step: int
    steps: int
    rollouts: int
    metrics: Mapping[str, float]
    """The previous step's metrics."""
    eval: Mapping[str, float]
    """The latest evaluation."""
    eval_step: int = 0
    """The step after which it was made; 0 = before training."""


Event = Literal["rebase", "clear_buffer", "reset_optimizer"]
EVENTS: frozenset[str] = frozenset(get_args(Event))


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """How a step is run: with replay or not, how many passes, and what happens before it."""

    name: str
    replay: bool = True
    updates_per_batch: int | None = None
    """None = train.updates_per_batch."""
    events: frozenset[Event] = frozenset()
    values: Mapping[str, float] = field(default_factory=dict)
    """Config fields to set from now on, by dotted name ("anchor.beta")."""


class ReincarnationSchedule(Part[C]):
    """Decides each step's phase."""

    @abstractmethod
    def phase(self, progress: Progress) -> Phase:
        """The phase of step `progress.step`. Events fire in the step whose phase names them."""

    def fields(self) -> Mapping[str, Sequence[float]]:
        """The config fields its phases set, by dotted name, each with its extreme values.

        They are checked before the run starts; none by default.
        """
        return {}


# around the loop
