"""From the groups of a step to the batch its updates read.

Log-probs if parts need them, values, advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput, Group, LossBatch, Prompt, Sample, Score
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator, AnchorPolicy, Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.ops import masked_mean
from rlkit.rewards.weights import GREEDY, weighed
from rlkit.training.collate import collate
from rlkit.training.micro_batches import Forwards
from rlkit.training.references import BehaviorLogp, Own, Parts, add_references, plan_forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """A step's batch, ready for updates."""

    samples: Sequence[Sample]
    groups: int
    tokens: Tokens
    loss: LossBatch
    values: Tensor
    """[B, T], the critic's at the start of the step."""
    returns: Tensor
    """[B, T], what the critic is fitted to."""
    own: Own
    """pi_k's log-probs, some of which the first update finds."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores the responses of a batch, without gradient."""

    policy: Policy
    critic: Critic | None
    forwards: Forwards
    behavior: BehaviorLogp
    """How fresh samples' behavior log-probs relate to the policy's own."""
    first: Callable[[Tensor, int, int], Tensor]
    """Of a batch's group [B], its groups and the step: the rows trained before the weights move."""

    def score(self, samples: Sequence[Sample], prompts: Sequence[Prompt]) -> dict[int, Score]:
        """The policy's scores of stored samples, each with its prompt, by sample_id."""
        groups = [Group(prompt=p, samples=[s]) for p, s in zip(prompts, samples, strict=True)]
        tokens = collate(groups, 0).tokens

        def forward(tokens: Tokens) -> Tensor:
            terms = self.policy.terms(tokens, "value")
            return torch.stack([terms.logp, terms.entropy], -1)

        found = self.forwards.by_rows(forward, tokens, torch.arange(len(samples)), (2,))
        scores = {}
        for sample, terms in zip(samples, found, strict=True):
            logp, entropy = terms[: len(sample.response_ids)].unbind(-1)
            scores[sample.sample_id] = Score(
                logp=logp.clone(),
                entropy=float(masked_mean(entropy, sample.loss_mask)),
                advantage=0.0,
            )
        return scores


def prepare(
    groups: Sequence[Group],
    step: int,
    parts: Parts,
    scorer: Scorer,
    fresh: Sequence[Group] | None = None,
) -> TrainBatch:
    """The batch of a step. Only the forwards that a part reads are computed.

    Responses that are not in the step's `fresh` groups are replayed; None = all are fresh.
    """
    rows = collate(groups, step, fresh)
    if rows.batch.expert.any() and not parts.loss.accepts_expert:
        raise UserError(
            "the batch holds expert demonstrations, "
            f"which {type(parts.loss).__name__} cannot use: their behavior log-probs are unknown; "
            "use a loss that accepts them"
        )
    forwards = scorer.forwards
    first = scorer.first(rows.batch.group, len(groups), step)
    plan = plan_forwards(rows, step, parts, scorer.behavior, first)
    batch, own = add_references(rows, plan, parts.anchor, scorer.policy, forwards)
    values = torch.zeros_like(batch.behavior_logp)
    if scorer.critic is not None:
        values = forwards.by_rows(scorer.critic, rows.tokens, torch.arange(len(rows.samples)))
    parts.advantage.begin(groups, scorer.score)
    read = advantage_batch(rows.samples, batch, values, parts.anchor, step)
    estimate = estimated(parts.advantage, weighed(read, rows.samples, parts.rewards))
    return TrainBatch(
        samples=rows.samples,
        groups=len(groups),
        tokens=rows.tokens,
        loss=replace(batch, advantage=torch.where(batch.mask, estimate.advantage, 0.0)),
        values=values,
        returns=estimate.returns,
        own=own,
        metrics=estimate.metrics,
    )


def estimated(advantage: AdvantageEstimator[Any], batch: AdvantageBatch) -> AdvantageOutput:
    """The advantages of a batch. A response without a valid token is in no statistic and gets 0."""
    live = batch.mask.any(-1)
    if live.all() or not live.any():
        return advantage.checked(batch)
    rows = live.nonzero().squeeze(-1)
    out = advantage.checked(batch.rows(rows))
    blank = out.advantage.new_zeros(batch.mask.shape)
    return replace(
        out,
        advantage=blank.index_copy(0, rows, out.advantage),
        returns=blank.index_copy(0, rows, out.returns),
    )


def advantage_batch(
    samples: Sequence[Sample], batch: LossBatch, values: Tensor, anchor: AnchorPolicy, step: int
) -> AdvantageBatch:
    """What the advantage estimator reads.

    The outcome on the last valid token, less the in-reward KL penalty.
    """
    mask, reward = batch.mask, batch.reward
    token_reward = torch.zeros_like(batch.behavior_logp)
    positions = torch.arange(mask.shape[1]).expand_as(mask)
    last = torch.where(mask, positions, 0).max(-1).values
    rows = torch.arange(len(reward))
    token_reward[rows, last] = torch.where(mask.any(-1), reward, 0.0)
    if anchor.placement == "reward":
        penalty = anchor.penalty(batch.prox_logp, batch, step)
        token_reward = token_reward - penalty
        reward = reward - penalty.sum(-1)
    return AdvantageBatch(
        reward=reward,
        rewards=batch.rewards,
        token_reward=token_reward,
        greedy_reward=torch.tensor([float(s.extras.get(GREEDY, 0.0)) for s in samples]),
        mask=mask,
        group=batch.group,
        age=batch.age,
        expert=batch.expert,
        replayed=batch.replayed,
        values=values,
        behavior_logp=batch.behavior_logp,
        prox_logp=batch.prox_logp,
        anchor_logp=batch.anchor_logp,
        extras=batch.extras,
    )
