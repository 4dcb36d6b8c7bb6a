"""From the groups of a step to the batch its updates read.

Log-probs if parts need them, values, advantages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, Group, LossBatch, Prompt, Sample, Score, pad
from rlkit.errors import UserError
from rlkit.interfaces import AnchorPolicy, Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.training.micro_batches import Forwards
from rlkit.training.references import (
    CACHED,
    BehaviorLogp,
    Parts,
    Rows,
    add_references,
    plan_forwards,
)

GREEDY = "greedy_reward"
"""The key of `Sample.extras` that holds the reward of the prompt's greedy response."""


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
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores the responses of a batch, without gradient."""

    policy: Policy
    critic: Critic | None
    forwards: Forwards
    behavior: BehaviorLogp
    """How fresh samples' behavior log-probs relate to the policy's own."""

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
                logp=logp.clone(), entropy=float(entropy.contiguous().mean()), advantage=0.0
            )
        return scores


def collate(groups: Sequence[Group], step: int) -> Rows:
    """The responses of the groups, one after the other."""
    pairs = [
        (group.prompt, sample, g) for g, group in enumerate(groups) for sample in group.samples
    ]
    samples = [sample for _, sample, _ in pairs]
    tokens = Tokens.of([prompt.ids for prompt, _, _ in pairs], [s.response_ids for s in samples])
    length = tokens.response_ids.shape[1]
    mask = pad([s.loss_mask for s in samples], length).bool()
    behavior = pad([s.behavior_logp for s in samples], length)
    rewards = sorted({name for s in samples for name in s.rewards})
    extras = sorted({name for s in samples for name in s.extras if not name.startswith(CACHED)})
    oldest = [int(s.policy_version.min()) if len(s.policy_version) else step for s in samples]
    batch = LossBatch(
        mask=mask,
        advantage=torch.zeros_like(behavior),
        behavior_logp=behavior,
        prox_logp=behavior,
        anchor_logp={},
        reward=torch.tensor([s.reward for s in samples], dtype=torch.float32),
        group=torch.tensor([g for _, _, g in pairs]),
        age=torch.tensor([step - version for version in oldest]),
        expert=torch.tensor([s.source == "expert" for s in samples]),
        truncated=torch.tensor([s.finish_reason == "length" for s in samples]),
        response_ids=tokens.response_ids,
        rewards={
            name: torch.tensor([float(s.rewards.get(name, 0.0)) for s in samples])
            for name in rewards
        },
        extras={name: stacked(name, samples, length) for name in extras},
    )
    return Rows(samples=samples, tokens=tokens, batch=batch)


def stacked(name: str, samples: Sequence[Sample], length: int) -> Tensor:
    """One entry of `Sample.extras` over the batch: [B, length] if it is per token, else [B].

    0 for a sample without it.
    """
    values = [torch.as_tensor(s.extras.get(name, 0.0), dtype=torch.float32) for s in samples]
    if not any(value.dim() for value in values):
        return torch.stack(values)
    blank = torch.zeros(0)
    return pad([value if value.dim() else blank for value in values], length)


def prepare(
    groups: Sequence[Group],
    step: int,
    parts: Parts,
    scorer: Scorer,
) -> TrainBatch:
    """The batch of a step. Only the forwards that a part reads are computed."""
    rows = collate(groups, step)
    if rows.batch.expert.any() and not parts.loss.accepts_expert:
        raise UserError(
            "the batch holds expert demonstrations, "
            f"which {type(parts.loss).__name__} cannot use: their behavior log-probs are unknown; "
            "use a loss that accepts them"
        )
    forwards = scorer.forwards
    plan = plan_forwards(rows, step, parts, scorer.behavior)
    batch, mismatch = add_references(rows, plan, parts.anchor, scorer.policy, forwards)
    values = torch.zeros_like(batch.behavior_logp)
    if scorer.critic is not None:
        values = forwards.by_rows(scorer.critic, rows.tokens, torch.arange(len(rows.samples)))
    estimate = parts.advantage(advantage_batch(rows.samples, batch, values, parts.anchor, step))
    return TrainBatch(
        samples=rows.samples,
        groups=len(groups),
        tokens=rows.tokens,
        loss=replace(batch, advantage=torch.where(batch.mask, estimate.advantage, 0.0)),
        values=values,
        returns=estimate.returns,
        metrics={**estimate.metrics, **mismatch},
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
        values=values,
        behavior_logp=batch.behavior_logp,
        prox_logp=batch.prox_logp,
        anchor_logp=batch.anchor_logp,
    )
