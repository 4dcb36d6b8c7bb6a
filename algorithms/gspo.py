"""GSPO and LUSPO: PPO's clip on a response's geometric-mean ratio."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation, masked_log_ratio, sequence_log_ratio
from rlkit.registry import register, variant


def response_log_ratio(logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """log s [B, T]: the mean log-ratio of a response, with each token's own gradient."""
    mean = sequence_log_ratio(masked_log_ratio(logp, other, mask), mask, "geometric")
    grad_surrogate = torch.where(mask, logp, 0.0)
    return mean.detach() + (grad_surrogate - grad_surrogate.detach())


class GspoConfig(RatioConfig):
    """Settings of the clip on the response's ratio."""

    aggregation: Aggregation = "seq-mean-token-mean"
    clip_low: Annotated[float, Field(gt=0, le=1)] = 3e-4
    """Lower clip: below 1 - clip_low a response gives no gradient where its advantage is negative.
    """
    clip_high: Annotated[float, Field(gt=0)] = 4e-4
    """Upper clip: above 1 + clip_high a response gives no gradient where its advantage is positive.
    """
    log_seq_ratio_max: Annotated[float, Field(gt=0)] | None = 10.0
    """Upper clamp of a response's mean log-ratio, with zero gradient above (verl); null = none.
    `log_ratio_clamp` bounds it on both sides."""


@register("loss", "gspo")
class GSPO(RatioLoss[GspoConfig]):
    """One length-normalized ratio per response, since there is one reward per response too.

        s = exp(mean_t log r),  s_t = sg[s] pi_t / sg[pi_t]
        L = -min(s_t A, clip(s_t, 1 - clip_low, 1 + clip_high) A)

    Source: arXiv:2507.18071, Eqs. 5-7 and the token form of Eqs. 13-14, which lets the advantage
    differ between tokens and is GSPO itself if it does not. Averaged over a response's tokens,
    then over responses; the gradient weight is s A / T on each token, 0 if the response is
    clipped.

    Public code: verl (clamp of log s at 10), Trinity-RFT, OpenRLHF, AReaL, slime and NeMo-RL agree;
    TRL is the same with importance_sampling_level "sequence" and loss_type "grpo". TRL's default
    loss_type weights responses by their length, which is not the paper's.
    """

    sources = ("2507.18071",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, other = self.config, batch.mask, self.other(batch)
        bound = c.log_ratio_clamp or torch.inf
        log_ratio = response_log_ratio(policy.logp, other, mask).clamp(
            -bound, min(bound, c.log_seq_ratio_max or torch.inf)
        )
        response_ratio = log_ratio.exp()
        value, clipped = clipped_surrogate(
            response_ratio, batch.advantage, 1 - c.clip_low, 1 + c.clip_high
        )
        return policy_output(
            value,
            mask,
            ratio=self.ratio(policy.logp, other, mask),
            response_ratio=response_ratio,
            clip_fraction=clipped,
        )


luspo = variant(
    "luspo",
    of=GSPO,
    aggregation="seq-mean-token-sum",
    clip_low=2e-3,
    clip_high=2.5e-3,
    sources=("2602.05261",),
    doc="""GSPO's loss of a response times its length, so that long responses are not favored.

        L_i = T_i GSPO_i, averaged over responses

    Source: arXiv:2602.05261. The clip is that of section 5.1 as TRL's documentation gives it.

    Public code: TRL's loss_type "luspo" with importance_sampling_level "sequence"; with its default
    token level it is a plain sum over tokens.
    """,
)
