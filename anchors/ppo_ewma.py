"""The clip is centred on an average of the policy's weights: PPO-EWMA (arXiv:2110.00641).

    W' = decay W + 1        proximal <- (decay W / W') proximal + theta / W'        W = 1 at first

The bias-corrected average takes the place of pi_k in a batch's proximal log-probs, which are the
centre of a decoupled clip; with it the paper makes PPO independent of the batch size. A penalty
beta KL(pi || proximal) by k2 is the source's second form; none by default. The average starts again
at each rebirth. Use a loss whose ratio is to the behavior and whose clip is around prox, such as
loss=decoupled_ppo; one whose ratio is to prox would take the average for the sampling policy.

Status: adapted; the source updates after every optimizer step, here after every training step, so
that `decay` counts training steps. Its default is the paper's for optimizer steps (a centre of mass
of 8).

Public code: openai/ppo-ewma. The average of advantage moments that it also has is not part of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from anchors.average import AveragingAnchor
from rlkit.interfaces import AnchorConfig, FreezablePolicy, State
from rlkit.ops import KLEstimator
from rlkit.registry import register

PROXIMAL = "proximal"


class PpoEwmaConfig(AnchorConfig):
    """Settings of the average; no penalty by default."""

    beta: Annotated[float, Field(ge=0)] = 0.0
    value_estimator: KLEstimator = "k2"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.889
    """Share of the average's weight that stays after a step; 0 = the proximal policy is pi_k."""

    @model_validator(mode="after")
    def _pi_k_is_replaced(self) -> Self:
        if self.placement == "reward" or self.bias_correction:
            raise ValueError(
                "placement=reward and bias_correction=true read the log-probs of pi_k, whose place "
                "the proximal policy takes; leave both at their defaults"
            )
        return self


@register("anchor", "ppo_ewma")
class PpoEwma(AveragingAnchor[PpoEwmaConfig]):
    """The proximal policy is the bias-corrected moving average of the weights."""

    sources = ("2110.00641",)
    proximal = PROXIMAL

    def __init__(self, config: PpoEwmaConfig | None = None) -> None:
        super().__init__(config)
        self.total = 1.0
        """W, the weight of all policies in the average."""

    def weights(self, step: int) -> Mapping[str, float]:
        """All on the proximal policy."""
        return {PROXIMAL: 1.0}

    def move(self, policy: FreezablePolicy) -> None:
        """Take the policy into the average."""
        self.total = self.config.decay * self.total + 1
        self.follow(policy, PROXIMAL, 1 / self.total)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Start the average at the current policy."""
        self.means, self.steps, self.total = {}, 0, 1.0
        self.take(PROXIMAL, policy)

    def state_dict(self) -> State:
        """The average's state and its weight."""
        return super().state_dict() | {"total": self.total}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take back `state_dict()`."""
        super().restore(policy, state)
        self.total = state["total"]
