"""From the groups of a step to the batch its updates read.

Log-probs where parts need them, values, advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, Group, LossBatch, Sample, pad
from rlkit.critic import Critic
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator, AnchorPolicy, Correction, PolicyLoss
from rlkit.ops import kl_value, masked_mean
from rlkit.policy import FrozenPolicy, Policy, Tokens
from rlkit.processes import ALONE, Processes

ROUNDING = 1e-10
"""Above the relative variance of float32 numbers that should be equal."""
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
class Parts:
    """The parts that decide which forwards a step needs."""

    loss: PolicyLoss[Any]
    corrections: Sequence[tuple[str, Correction[Any]]]
    advantage: AdvantageEstimator[Any]
    anchor: AnchorPolicy[Any]

    def needs(self, what: str) -> bool:
        """Whether the loss, a correction or the advantage reads it."""
        return (
            what in self.loss.needs
            or any(what in c.needs for _, c in self.corrections)
            or what in self.advantage.needs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwards:
    """How a step's forwards are run."""

    budget: int
    """Tokens of a micro-batch, see `split_rows`."""

    exact: bool
    """Whether the engine's log-probs of fresh samples are the trainer's own."""
    measured: bool = False
    """Whether they are compared with the trainer's though nothing reads those: other engines'."""
    processes: Processes = ALONE
    """Who divides them."""

    def by_rows(self, forward: Callable[[Tokens], Tensor], tokens: Tokens, rows: Tensor) -> Tensor:
        """`forward` on the given rows in micro-batches, without gradient.

        Returns [len(rows), T] on the CPU.
        """
        out = torch.zeros(len(rows), tokens.response_ids.shape[1])
        if not len(rows):
            return out
        with torch.no_grad():
            for part in micro_batches(tokens.lengths[rows], self.budget, self.processes):
                if len(part):
                    value = forward(tokens.rows(rows[part])).float().cpu()
                    out[part, : value.shape[1]] = value
                elif self.processes.divides_weights:  # the others cannot run a forward alone
                    forward(tokens.rows(rows[:1]))
        return self.processes.sum(out)


def split_rows(lengths: Tensor, budget: int) -> list[Tensor]:
    """Partition rows, sorted by length, into micro-batches with rows * longest <= budget.

    One row always fits.
    lengths [B] in tokens; returns [b] int64 row indices.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    splits: list[Tensor] = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, budget // longest)
        splits.append(order[start : start + size])
        start += size
    return splits


def micro_batches(lengths: Tensor, budget: int, processes: Processes) -> list[Tensor]:
    """This process's micro-batches: `split_rows` of every count-th row, the longest first.

    Each process has as many; the last ones may be empty.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    shares = [order[rank :: processes.count] for rank in range(processes.count)]
    splits = [[share[part] for part in split_rows(lengths[share], budget)] for share in shares]
    own = splits[processes.rank]
    return own + [order[:0]] * (max(map(len, splits)) - len(own))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The responses of some groups as tensors."""

    samples: Sequence[Sample]
    tokens: Tokens
    batch: LossBatch
    """Without advantages; prox_logp is behavior_logp."""


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
    )
    return Rows(samples=samples, tokens=tokens, batch=batch)


def prepare(
    groups: Sequence[Group],
    step: int,
    parts: Parts,
    policy: Policy,
    critic: Critic | None,
    forwards: Forwards,
) -> TrainBatch:
    """The batch of a step. Only the forwards that a part reads are computed."""
    rows = collate(groups, step)
    samples, tokens, batch = rows.samples, rows.tokens, rows.batch
    if batch.expert.any() and not parts.loss.accepts_expert:
        raise UserError(
            "the batch holds expert demonstrations, "
            f"which {type(parts.loss).__name__} cannot use: their behaviour log-probs are unknown; "
            "use a loss that accepts them"
        )
    batch, mismatch = add_references(rows, step, parts, policy, forwards)
    values = torch.zeros_like(batch.behavior_logp)
    if critic is not None:
        values = forwards.by_rows(critic, tokens, torch.arange(len(samples)))
    estimate = parts.advantage(advantage_batch(samples, batch, values, parts.anchor, step))
    batch = replace(batch, advantage=torch.where(batch.mask, estimate.advantage, 0.0))
    return TrainBatch(
        samples=samples,
        groups=len(groups),
        tokens=tokens,
        loss=batch,
        values=values,
        returns=estimate.returns,
        metrics={**estimate.metrics, **mismatch},
    )


def engine_mismatch(batch: LossBatch, own: Tensor, fresh: Tensor) -> dict[str, float]:
    """How far the engine's log-probs of the fresh rows [B] bool are from the trainer's own [B, T].

    Their KL by k3 and the mean and largest |difference|, in nats a token.
    """
    if not fresh.any():
        return {}
    engine, mask = batch.behavior_logp, batch.mask & fresh[:, None]
    difference = torch.where(mask, engine - own, 0.0).abs()
    return {
        "off_policy/engine_kl": float(masked_mean(kl_value(engine, own, mask, "k3"), mask)),
        "off_policy/engine_difference_mean": float(masked_mean(difference, mask)),
        "off_policy/engine_difference_max": float(difference.max()),
    }


@dataclass(frozen=True)
class Kept:
    """Log-probs under a frozen reference, kept with the samples while it stays the same."""

    name: str
    number: int | None
    """Which policy the name stands for; None = one that moves, so nothing is kept."""

    @property
    def key(self) -> str:
        """Where a sample keeps them."""
        return f"anchor_logp:{self.name}:{self.number}"

    def logp(self, reference: FrozenPolicy, rows: Rows, forwards: Forwards) -> Tensor:
        """[B, T]; only samples that do not have them yet cost a forward."""
        keeps, samples = self.number is not None, rows.samples
        missing = [i for i, s in enumerate(samples) if not keeps or self.key not in s.extras]
        out = torch.zeros(rows.tokens.response_ids.shape)
        if missing:
            out[missing] = forwards.by_rows(reference.logp, rows.tokens, torch.tensor(missing))
        for i, sample in enumerate(samples) if keeps else ():
            length = len(sample.response_ids)
            if self.key in sample.extras:
                out[i, :length] = torch.as_tensor(sample.extras[self.key])
            else:
                self._keep(sample, out[i, :length].clone())
        return out

    def _keep(self, sample: Sample, logp: Tensor) -> None:
        """Put them in the place of those under an earlier policy of the name."""
        stem = self.key.rpartition(":")[0] + ":"
        for key in [key for key in sample.extras if key.startswith(stem)]:
            del sample.extras[key]
        sample.extras[self.key] = logp


def add_references(
    rows: Rows,
    step: int,
    parts: Parts,
    policy: Policy,
    forwards: Forwards,
) -> tuple[LossBatch, dict[str, float]]:
    """Fill prox_logp and anchor_logp as far as the parts read them.

    Also the engine's mismatch, where its log-probs are not the trainer's own; the trainer's are
    then computed for every fresh response.
    """
    anchor, batch = parts.anchor, rows.batch
    proximal = anchor.proximal if parts.needs("prox") else None
    wanted = set(anchor.references(step)) | ({proximal} if proximal else set())
    wanted |= {
        need.removeprefix("anchor:") for need in parts.loss.needs if need.startswith("anchor:")
    }
    frozen = {name: anchor.reference(name) for name in sorted(wanted)}
    every = torch.arange(len(batch.group))
    own = parts.needs("prox") and proximal is None
    read = own or anchor.placement == "reward" or anchor.config.bias_correction
    read = read or None in frozen.values()
    fresh = (batch.age == 0) & ~batch.expert
    known = fresh if forwards.exact else torch.zeros_like(fresh)
    chosen = every[~known if read else fresh & ~known & forwards.measured]
    prox = batch.behavior_logp.clone()
    prox[chosen] = forwards.by_rows(policy.logp, rows.tokens, chosen)
    compared = not forwards.exact and (read or forwards.measured)
    mismatch = engine_mismatch(batch, prox, fresh) if compared else {}
    if read:
        batch = replace(batch, prox_logp=prox)
    logps: dict[str, Tensor] = {}
    for name, reference in frozen.items():
        if reference is None:
            logps[name] = batch.prox_logp
        else:
            assert isinstance(reference, FrozenPolicy)
            kept = Kept(name, anchor.number(name))
            logps[name] = kept.logp(reference, rows, forwards)
    if proximal:
        batch = replace(batch, prox_logp=logps[proximal])
    return replace(batch, anchor_logp=logps), mismatch


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
    names = sorted({name for sample in samples for name in sample.rewards})
    return AdvantageBatch(
        reward=reward,
        rewards={n: torch.tensor([float(s.rewards.get(n, 0.0)) for s in samples]) for n in names},
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


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask; 0 where the returns do not vary.

    A spread that is rounding alone is none.
    """
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    error = returns - values
    left = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    varies = spread > ROUNDING * masked_mean(returns**2 + values**2, mask)
    return float(1 - left / spread) if varies else 0.0
