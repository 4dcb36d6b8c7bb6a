"""The greedy response as the baseline, ReMax (arXiv:2310.10505)."""

from __future__ import annotations

from algorithms.advantages.reinforce_pp import return_to_go
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import over_tokens
from rlkit.registry import register


@register("advantage", "remax")
class ReMax(AdvantageEstimator):
    """A_t = sum_{j>=t} R_j - R(greedy): better or worse than the greedy response.

    One greedy response per prompt is generated for its reward alone: it is not trained on, and not
    counted in rollouts/total. A replayed response keeps the greedy reward of its own step.

    Public code: agrees with verl's remax.
    """

    sources = ("2310.10505",)

    needs_greedy = True

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and undiscounted returns, [B, T]."""
        returns = return_to_go(b.token_reward, b.mask, 1.0)
        return AdvantageOutput(
            advantage=returns - over_tokens(b.greedy_reward, b.mask), returns=returns
        )
