"""Off-policy sequence masking (arXiv:2512.02556)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import masked_log_ratio, sequence_mean
from rlkit.registry import register


class OPSMConfig(PartConfig):
    """Settings of the mask."""

    delta: Annotated[float, Field(ge=0)] = 0.1
    """Mean log-ratio reference / pi above which a negative response is left out. The paper gives
    no number; Trinity-RFT has 0.1, slime 1e-4."""
    reference: Literal["behavior", "prox"] = "behavior"
    """The policy pi has moved away from: the one that sampled the response, as in the paper, or the
    one at the start of the step."""


@register("correction", "opsm")
class OPSM(Correction[OPSMConfig]):
    """Weight 0 where A < 0 and mean_t(log reference - log pi) > delta, else 1.

    Wrong responses the policy has already left are not pushed down further; correct ones always
    stay (arXiv:2512.02556). A mask of the policy's term alone: the denominators and the KL penalty
    keep the response. Demonstrations have no behavior log-probs and stay.

    Public code: agrees with TRL's off_policy_mask_threshold, slime's compute_opsm_mask and
    Trinity-RFT's enable_sequence_masking, up to whose log-probs are the reference.
    """

    sources = ("2512.02556",)

    def __init__(self, config: OPSMConfig | None = None) -> None:
        super().__init__(config)
        self.needs = frozenset({self.config.reference})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the 0/1 weight [B, T]."""
        to_prox = self.config.reference == "prox"
        other = batch.prox_logp if to_prox else batch.behavior_logp
        known = batch.mask if to_prox else batch.mask & ~batch.expert[:, None]
        left = sequence_mean(masked_log_ratio(other, policy.logp, known), known)
        return Corrected(batch=batch, weight=kept(left, batch.advantage, self.config.delta))


def kept(left: Tensor, advantage: Tensor, delta: float) -> Tensor:
    """1 [B, T] where advantage >= 0 or the response's log-ratio `left` [B] is at most delta."""
    out = (advantage < 0) & (left > delta)[:, None]
    return torch.where(out, torch.zeros_like(advantage), torch.ones_like(advantage))
