"""Mix-policy proximal policy gradient: the loss of ReMix (arXiv:2507.06892) and its relatives.

The surrogate is GePPO's (arXiv:2111.00072). A response of an earlier policy is clipped around where
the step starts, not around where the response was made. ToPPO (arXiv:2406.03894) and off-policy
GRPO (arXiv:2505.22257) use the same surrogate with the advantage of the policy that sampled.

Public code: equal to GePPO's with unit weights and without its centring of the advantages. ReMix's
training code is not public.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import alias, register, variant


def mix_window(
    centre: Tensor, clip_low: float, clip_high: float, *, lower_clamp_zero: bool
) -> tuple[Tensor, Tensor]:
    """The clip window [c - clip_low, c + clip_high] around c = pi_k / pi_{k-i}, each bound [B, T].

    It is additive in the ratio pi / pi_{k-i}. In pi / pi_k it is [1 - clip_low / c, 1 + clip_high /
    c]: at the first gradient step nothing is clipped, however old the response, and c = 1 (a fresh
    one) is PPO's window.
    """
    low = centre - clip_low
    return low.clamp(min=0) if lower_clamp_zero else low, centre + clip_high


class RemixConfig(LossConfig):
    """Settings of the mix-policy surrogate."""

    epsilon: Annotated[float, Field(gt=0)] = 0.2
    """Half-width of the clip window. Whether ReMix shrinks it with the age of the data, as GePPO
    does, is not known."""
    clip_low: Annotated[float, Field(gt=0)] | None = None
    """Distance of the lower bound from the centre; null = epsilon."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Distance of the upper bound from the centre; null = epsilon."""
    lower_clamp_zero: bool = False
    """Whether a negative lower bound is raised to 0 (arXiv:2505.22257). It cannot change the
    gradient."""
    centre: Literal["prox", "one"] = "prox"
    """Centre of the clip window: pi_k / pi_{k-i}, or 1, which takes the step's start for the policy
    that sampled and saves its forward."""


@register("loss", "remix")
class Remix(PolicyLoss[RemixConfig]):
    """Mix-PPG: L = -min(r A, clip(r, c - epsilon, c + epsilon) A).

    Per token, r = pi / pi_{k-i} and c = pi_k / pi_{k-i}, with pi_{k-i} the policy that sampled the
    response and pi_k the one the step starts from (arXiv:2507.06892). The tokens are averaged over
    the minibatch; the sources do not print the aggregation.

    Public code: ReMix has none for training. The surrogate is that of GePPO's authors
    (jqueeney/geppo, arXiv:2111.00072).
    """

    sources = ("2507.06892", "2111.00072")

    def __init__(self, config: RemixConfig | None = None) -> None:
        super().__init__(config)
        self.needs = frozenset(
            {"behavior", "prox"} if self.config.centre == "prox" else {"behavior"}
        )

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c = self.config
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask)
        centre = (
            self.ratio(batch.prox_logp, batch.behavior_logp, batch.mask)
            if c.centre == "prox"
            else torch.ones_like(ratio)
        )
        low, high = mix_window(
            centre=centre,
            clip_low=c.epsilon if c.clip_low is None else c.clip_low,
            clip_high=c.epsilon if c.clip_high is None else c.clip_high,
            lower_clamp_zero=c.lower_clamp_zero,
        )
        value, clipped = clipped_surrogate(ratio, batch.advantage, low, high)
        return policy_output(value, batch.mask, ratio=ratio, clip_fraction=clipped)


toppo = variant(
    "toppo",
    of=Remix,
    lower_clamp_zero=True,
    sources=("2406.03894", "2505.22257"),
    doc="""Transductive off-policy PPO (arXiv:2406.03894).

        L = -min(r A, clip(r, max(c - epsilon, 0), c + epsilon) A)

    A is the advantage under the policy that sampled, as the advantage parts compute it from stored
    rewards. The form is as arXiv:2505.22257 restates it, which also says that in practice c is
    about 1 (centre=one). The paper's choice of which policies' data to keep, and its epsilon, are
    unconfirmed; no public code was found.
    """,
)

alias("loss", "topppo", "toppo")

offpolicy_grpo = variant(
    "offpolicy_grpo",
    of=toppo,
    aggregation="seq-mean-token-mean",
    centre="one",
    sources=("2505.22257",),
    doc="""Off-policy GRPO (arXiv:2505.22257, Eq. 6): GRPO's surrogate on pi / pi_{k-v}.

    The advantage is group-normalized by the statistics of the policy that sampled. The authors set
    pi_k / pi_{k-v} to 1 as more stable; centre=prox is Eq. 6 as it stands. Groups of equal rewards
    leave the penalty too (Eq. 8), which is the anchor's skip_zero_advantage. Epsilon is
    unconfirmed. Public code: with centre=one it is TRL's GRPO on late samples.
    """,
)
