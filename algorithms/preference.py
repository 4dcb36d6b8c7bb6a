"""Preference losses on pairs of a group, and VPO, whose target counts votes (arXiv:2410.22891).

The best and the worst response of a group are a pair, and the policy learns to prefer the one over
the other, relative to a reference. Such losses tolerate stale data well: they have no ratio to the
policy that sampled it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from algorithms.pair_losses import Pair, cross_entropy
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import (
    Aggregation,
    group_max,
    group_sum,
    masked_log_ratio,
    sequence_mean,
    sequence_sum,
)
from rlkit.registry import register

REFERENCE = "base"
EqualRewards = Literal["skip", "pair"]


def last_of(candidate: Tensor, group: Tensor) -> Tensor:
    """The last candidate of each group, [B] bool."""
    order = torch.arange(1.0, len(group) + 1, dtype=torch.float64, device=group.device)
    place = torch.where(candidate, order, 0.0)
    return candidate & (place == group_max(place, group))


def first_of(candidate: Tensor, group: Tensor) -> Tensor:
    """The first candidate of each group, [B] bool."""
    return last_of(candidate.flip(0), group.flip(0)).flip(0)


def best_and_worst(batch: LossBatch, equal: EqualRewards = "skip") -> tuple[Tensor, Tensor]:
    """Which rows have the highest and which the lowest reward of their group, [B] bool each.

    Responses without valid tokens stand apart. Groups of equal rewards have neither under "skip".
    """
    live = batch.mask.any(-1)
    top = group_max(torch.where(live, batch.reward, -torch.inf), batch.group)
    bottom = -group_max(torch.where(live, -batch.reward, -torch.inf), batch.group)
    paired = live & ((top > bottom) | (equal == "pair"))
    return paired & (batch.reward == top), paired & (batch.reward == bottom)


class PreferenceConfig(LossConfig):
    """Settings of losses on pairs."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the reference: the reward a pair implies is beta times the log-ratio to it."""
    length_normalize: bool = False
    """Whether a response's log-ratio is the mean over its tokens instead of the sum."""
    equal_rewards: EqualRewards = "skip"
    """A group whose rewards are all equal has no pair, or that of its first and its last response
    (TRL), which have no order: noise where a verifier gives 0 or 1."""


PC = TypeVar("PC", bound=PreferenceConfig, default=PreferenceConfig)


class PreferenceLoss(PolicyLoss[PC]):
    """A loss on the margin between the best and the worst response of each group.

    The margin is h = log(pi / reference)(chosen) - log(pi / reference)(rejected). Both responses of
    a pair carry its loss, so that a mean over responses is the mean over pairs. Of several with the
    same reward the first is the best and the last the worst.
    """

    Config = PreferenceConfig
    scope: Literal["token", "group", "minibatch"] = "group"
    needs = frozenset({f"anchor:{REFERENCE}"})
    sees_penalty = False

    @abstractmethod
    def pair_loss(self, pair: Pair, target: Tensor) -> Tensor:
        """The loss [B] of each row's pair.

        `target` is how sure it is that the chosen response is the better one.
        """

    def target(self, batch: LossBatch, best: Tensor, worst: Tensor) -> Tensor:
        """How sure it is that the best response is better, [B]: certain, unless votes count."""
        return torch.ones_like(batch.reward)

    @property
    def normalizes(self) -> bool:
        """Whether log-probs are means over a response's tokens, not sums."""
        return self.config.length_normalize

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One term per pair, on both its rows."""
        mask, group, reference = batch.mask, batch.group, batch.anchor_logp[REFERENCE]
        best, worst = best_and_worst(batch, self.config.equal_rewards)
        chosen, rejected = first_of(best, group), last_of(worst, group)
        sign = chosen.to(policy.logp.dtype) - rejected.to(policy.logp.dtype)  # [B], +1, -1 or 0
        reduce = sequence_mean if self.normalizes else sequence_sum
        log_ratio = reduce(masked_log_ratio(policy.logp, reference, mask), mask)
        pair = Pair(
            w=group_sum(torch.where(chosen, log_ratio, 0.0), group),
            l=group_sum(torch.where(rejected, log_ratio, 0.0), group),
            policy=group_sum(sign * reduce(policy.logp, mask), group),
            reference=group_sum(sign * reduce(reference, mask), group),
            at=sign > 0,
            group=group,
        )
        value = self.pair_loss(pair, self.target(batch, best, worst))
        return policy_output(
            value,
            mask & (sign != 0)[:, None],
            ratio=self.ratio(policy.logp.detach(), reference, mask),
            pair=sign,
            margin=pair.h,
            accuracy=(pair.h.sign() + 1) / 2,
        )


class VoteConfig(PreferenceConfig):
    """Settings of vote-based preference losses. The paper's values are unconfirmed."""

    prior: Annotated[float, Field(ge=0)] = 1.0
    """c of the Beta(c, c) prior on the share of votes: 0 = the share itself, large = 1/2. Our
    choice; the paper's value is unconfirmed, as is its beta."""
    votes: Literal["reward", "group"] = "reward"
    """What a response's votes are: its reward, if rewards count votes (a verifier's 1 is one
    vote, below 0 is none), or how many responses of the group have that reward. With "group" the
    majority wins even if a verifier knows it to be wrong."""


class VoteLoss(PreferenceLoss[VoteConfig]):
    """A preference loss with a soft target: how the votes are split between the two answers."""

    def target(self, batch: LossBatch, best: Tensor, worst: Tensor) -> Tensor:
        """The posterior mean (v_w + c) / (v_w + v_l + 2c)."""
        c = self.config
        for_best, for_worst = (
            group_max(torch.where(side, batch.reward, 0.0).clamp(min=0), batch.group)
            if c.votes == "reward"
            else group_sum(side.to(batch.reward.dtype), batch.group)
            for side in (best, worst)
        )
        total = for_best + for_worst + 2 * c.prior
        return torch.where(
            total > 0, (for_best + c.prior) / torch.where(total > 0, total, 1.0), 0.5
        )


@register("loss", "vdpo")
class VDPO(VoteLoss):
    """L = -p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h), p = (v_w + c) / (v_w + v_l + 2c).

    Vote-based DPO: the target is the posterior mean of the share of votes for the chosen answer.
    The votes are rewards that count them; with a verifier's 0 and 1, p = (1 + c) / (1 + 2c).

    Public code: none is known; the formula is the standard algebra of what the abstract says.
    """

    sources = ("2410.22891",)

    def pair_loss(self, pair: Pair, target: Tensor) -> Tensor:
        """The loss [B] of each row's pair."""
        return cross_entropy(self.config.beta * pair.h, target)


@register("loss", "vipo")
class VIPO(VoteLoss):
    """L = (h - (2p - 1) / (2 beta))^2, with p as in `vdpo`: vote-based IPO.

    Not the VIPO of arXiv:2504.11944, which penalizes value inconsistency offline.

    Public code: none is known.
    """

    sources = ("2410.22891",)

    def pair_loss(self, pair: Pair, target: Tensor) -> Tensor:
        """The loss [B] of each row's pair."""
        return (pair.h - (2 * target - 1) / (2 * self.config.beta)).square()
