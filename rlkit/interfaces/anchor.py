"""Reference policies, and the penalty for drifting away from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import (
    LossBatch,
)
from rlkit.errors import UserError
from rlkit.interfaces.part import Part, PartConfig, RunContext, State
from rlkit.interfaces.tokens import Tokens
from rlkit.ops import (
    Clamps,
    KLEstimator,
    adaptive_coefficient,
    kl_penalty,
    kl_value,
    masked_log_ratio,
    masked_ratio,
    ratio_weighted,
    scaled_gradient,
)


class Reference(Protocol):
    """A frozen policy an anchor owns: a copy of the policy, or a model of your own (a teacher)."""

    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token at `rollout.temperature`: [B, T] float32, no gradient.

        0 where padded. The result may be on any device.
        """
        ...

    def state_dict(self) -> State:
        """Its weights (for a checkpoint)."""
        ...


class FrozenCopy(Reference, Protocol):
    """A frozen copy of the policy."""

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take other weights in place, one tensor after the other.

        Given a generator that computes them, no more than one is in memory at once.
        """
        ...


class FreezablePolicy(Protocol):
    """What an anchor sees of the policy."""

    def freeze(self) -> FrozenCopy:
        """A frozen copy of the policy as it is now."""
        ...

    def restore(self, state: State) -> FrozenCopy:
        """A frozen policy with the weights of a `Reference.state_dict()`."""
        ...

    def state_dict(self) -> State:
        """The weights that `freeze` copies, by name: the policy's own tensors if it can be."""
        ...


UNBIASED: tuple[KLEstimator, ...] = ("k1", "k3")
"""Estimators whose value times the differentiated ratio has the gradient of KL(pi||ref)."""


class AnchorConfig(PartConfig):
    """Fields every anchor with a KL penalty has."""

    beta: Annotated[float, Field(ge=0)] = 1e-3
    """Coefficient of the penalty; 0 = no penalty and no reference forwards."""
    value_estimator: KLEstimator = "k3"
    """Estimator of the penalty's value: k1 = log r, k2 = (log r)^2/2, k3 = 1/r - 1 + log r, with r
    = pi/reference. On samples of pi, k1 and k3 estimate KL(pi||ref) without bias, k2 with bias."""
    gradient_estimator: KLEstimator = "k2"
    """Estimator whose derivative is the gradient. On samples of pi: k2 gives the gradient of
    KL(pi||ref), k3 that of the forward KL(ref||pi), k1 only zero-mean noise (arXiv:2510.01555). On
    replayed samples none of them is exact unless `importance_weight` is set."""
    importance_weight: bool = False
    """Multiply the gradient by the detached ratio pi/behavior, which makes k2 the gradient of
    KL(pi||ref) on replayed samples too; demonstrations weigh 1. ReMix (arXiv:2507.06892) does not
    say whether it does; false keeps the weight at 1."""
    skip_zero_advantage: bool = True
    """Leave groups whose advantages are all zero out of the penalty, as arXiv:2505.22257 (Eq. 8)
    does: without a reward signal the penalty would be their only gradient. false = TRL's and
    DeepSeekMath's behavior."""
    bias_correction: bool = False
    """Multiply the penalty by the ratio pi/prox, differentiated too: on samples of prox the
    unbiased estimate of DeepSeek-V3.2 (arXiv:2512.02556), TRL's `use_bias_correction_kl`. Needs
    gradient_estimator and value_estimator to be the same, k1 or k3. On replayed samples, which prox
    did not draw, it is not unbiased."""
    bias_correction_cap: Annotated[float, Field(gt=0)] | None = None
    """Upper bound on that ratio (Trinity-RFT's corrected_k3: 2); null = none."""
    log_ratio_clamp: Annotated[float, Field(gt=0)] | None = 20.0
    """The value's log-ratio is clamped to [-c, c]; null = no clamp. The gradient of another
    estimator is not clamped."""
    value_clamp: Annotated[float, Field(gt=0)] | None = None
    """A token's value is clamped to [-c, c] (verl's low_var_kl: 10); null = no clamp."""
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """Adapts the coefficient after each step to bring `anchor/kl` near this value
    (arXiv:1909.08593); null = a constant beta."""
    horizon: Annotated[int, Field(ge=1)] = 40
    """Steps over which an error in the KL is corrected, if target_kl is set. The source counts
    10,000 responses, which is 40 steps of 256."""
    device: Literal["cpu"] | None = None
    """Where the copies of the policy are kept: cpu = in host memory, from where each layer visits
    the policy's device for the reference's forward. That frees the copies' GPU memory, and moves a
    model's weights per micro-batch; null = on the policy's device."""
    placement: Literal["loss", "reward"] = "loss"
    """"loss" adds the penalty to the loss; "reward" subtracts beta * k1 from the token rewards
    (PPO's classic form)."""

    @model_validator(mode="after")
    def _unbiased(self) -> Self:
        if not self.bias_correction:
            return self
        value, gradient = self.value_estimator, self.gradient_estimator
        if value != gradient or value not in UNBIASED:
            wanted = value if value in UNBIASED else "k3"
            raise ValueError(
                "bias_correction=true gives the gradient of the KL only if value_estimator and "
                f"gradient_estimator are the same, k1 or k3 (they are {value} and {gradient}); set "
                f"both to {wanted}"
            )
        if self.importance_weight:
            raise ValueError(
                "bias_correction=true and importance_weight=true weigh the penalty by a ratio "
                "each; choose one of them"
            )
        return self


AC = TypeVar("AC", bound=AnchorConfig, default=AnchorConfig)


class AnchorPolicy(Part[AC]):
    """Keeps the policy close to one or more frozen references, which it owns."""

    Config: ClassVar[type[PartConfig]] = AnchorConfig
    proximal: str | None = None
    """The reference that replaces pi_k in `prox_logp`, if any."""
    context: RunContext = RunContext()
    """The run it belongs to, see `open`."""
    factor: float = 1.0
    """The factor by which `target_kl` has scaled beta so far; part of the state."""

    def open(self, context: RunContext) -> None:
        """Called once before the run begins."""
        self.context = context

    @property
    def averages_weights(self) -> bool:
        """Whether a reference is made of several policies' weights.

        Low-rank adapters have no average: that of their factors A and B is not that of the products
        BA they add, which has a higher rank.
        """
        return False

    @property
    def placement(self) -> Literal["loss", "reward"]:
        """Where the penalty enters."""
        return self.config.placement

    def weights(self, step: int) -> Mapping[str, float]:
        """Reference name -> its share of the penalty at this step; 1 for each of `references`.

        A subclass says which there are, here or in `references`. Raises UserError if it does not.
        """
        if type(self).references is AnchorPolicy.references:
            raise UserError(
                f"the anchor {type(self).__name__} names no reference: define weights or references"
            )
        return dict.fromkeys(self.references(step), 1.0)

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
        """The number of the policy that the name stands for now; None = one that moves.

        Log-probs under a numbered policy are cached with the samples until the number changes.
        """
        return None

    def penalty(self, logp: Tensor, batch: LossBatch, step: int) -> Tensor:
        """beta * sum_name weight_name * KL_name, [B, T]: value and gradient of the two estimators.

        With placement "reward" the value is always k1, since k2 and k3 give a wrong gradient there.
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
            known = batch.mask & ~batch.expert[:, None]
            ratio = masked_ratio(logp.detach(), batch.behavior_logp, known, c.log_ratio_clamp)
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
        """Called after the step's log-probs are computed and before its update."""

    def after_step(self, policy: FreezablePolicy, step: int, metrics: Mapping[str, float]) -> None:
        """Called after the step's update; adapts the coefficient if there is a `target_kl`."""
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

    def close(self) -> None:
        """Called when its stage is over: let go of the references. It may be opened again."""

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Restore `state_dict()`; the policy rebuilds the frozen references.

        By default this is `load_state_dict`, for a state without references.
        """
        self.load_state_dict(state)
