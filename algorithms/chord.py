"""Supervised finetuning and RL in one objective, CHORD (arXiv:2508.11408).

Demonstrations enter as an auxiliary objective with a weight of its own, which a schedule moves from
imitation to exploration, and token weights keep them from breaking what the policy has learned.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from algorithms.ppo import PPOConfig
from algorithms.ratio import RatioLoss, policy_output
from algorithms.sft import Weighting, imitation
from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.registry import register

Weights = tuple[float, float]
"""Of the policy's own responses and of demonstrations."""


class ChordConfig(PPOConfig):
    """Settings of CHORD. The defaults are those of CHORD-phi."""

    mu: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of the demonstrations, 1 - mu that of the policy's own responses. CHORD-mu moves it
    from 0.9 to 0.05 over 200 steps by a cosine schedule, without token weights."""
    weighting: Weighting = "phi"
    """The detached weight of a demonstration's token of probability p: phi = p (1 - p), none = 1,
    probability = p."""


def two_terms(
    loss: RatioLoss[Any], policy: PolicyTerms, batch: LossBatch, weighting: Weighting, mu: Weights
) -> LossOutput:
    """PPO's surrogate on own rows and imitation of demonstrations, each averaged over its own.

    `mu` are the weights of the two.
    """
    expert = batch.mask & batch.expert[:, None]
    own = batch.mask & ~expert
    ratio = loss.ratio(policy.logp, loss.other(batch), own)
    value, clipped = loss.config.surrogate(ratio, batch.advantage)
    out = policy_output(value, own, ratio=ratio, clip_fraction=clipped)
    taught = imitation(policy.logp, expert, weighting)
    terms = [
        Term(name="policy", value=value, mask=own, rows=~batch.expert, weight=mu[0]),
        Term(
            name="expert",
            corrected=False,
            value=taught,
            mask=expert,
            rows=batch.expert,
            weight=mu[1],
        ),
    ]
    return LossOutput(terms=terms, metrics=out.metrics)


@register("loss", "chord")
class CHORD(RatioLoss[ChordConfig]):
    """L = (1 - mu) L_GRPO(own responses) + mu L_SFT(demonstrations), L_SFT = -sg[phi(p)] log p.

    L_GRPO is PPO's clipped surrogate. Each part is averaged over its own tokens, so that mu does
    not depend on how many demonstrations there are.

    Public code: Trinity-RFT's `mix_chord` divides each part by its expected number
    of responses in the batch; the two agree if the numbers are the expected ones.
    """

    sources = ("2508.11408",)
    accepts_expert = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Two terms, each aggregated over its own rows."""
        c = self.config
        return two_terms(self, policy, batch, c.weighting, (1 - c.mu, c.mu))
