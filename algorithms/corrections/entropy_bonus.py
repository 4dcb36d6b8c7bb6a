"""An entropy bonus (arXiv:1602.01783)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rlkit.batch import LossBatch, PolicyTerms, Term
from rlkit.interfaces import Correction, PartConfig
from rlkit.registry import register


class EntropyBonusConfig(PartConfig):
    """Settings of the bonus."""

    coef: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the entropy (nats) in the objective. verl's usual 0.001; the loss subtracts it."""


@register("correction", "entropy_bonus")
class EntropyBonus(Correction[EntropyBonusConfig]):
    """L = L - coef * H(pi(. | prefix)), aggregated as the loss aggregates its own tokens.

    It keeps the policy from collapsing onto one answer (arXiv:1602.01783, section 4). The policy's
    own terms are not touched.

    Public code: verl's entropy_coeff follows the loss's aggregation too; TRL's entropy_coef is a
    token mean under every loss.
    """

    sources = ("1602.01783",)
    needs = frozenset({"entropy"})

    def terms(self, policy: PolicyTerms, batch: LossBatch) -> Sequence[Term]:
        """The bonus as one more term."""
        bonus = -self.config.coef * policy.entropy
        return [Term(name="entropy", value=bonus, mask=batch.mask, corrected=False)]
