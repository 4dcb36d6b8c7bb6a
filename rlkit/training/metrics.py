"""The metrics a step logs, except those that parts compute themselves."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms, Sample
from rlkit.interfaces import AnchorPolicy
from rlkit.ops import effective_sample_size, kl_value, masked_log_ratio, masked_mean
from rlkit.rewards.limits import multiplier_key
from rlkit.rollout.base import Generation
from rlkit.training.sums import sums_of
from rlkit.training.turn_metrics import TurnTally

CLAMP = 20.0
"""Log-ratios are clamped to [-CLAMP, CLAMP] before exp."""
BY_AGE = ("policy/clip_fraction", "policy/ratio_mean")
"""Metrics that are also logged per age of the weights that sampled a response."""
ROUNDING = 1e-10
"""An upper bound on the relative variance of float32 numbers that should be equal."""


@dataclass(frozen=True)
class Counted:
    """What counts in the metrics of some rows, known on the CPU."""

    mask: Tensor
    """[B, T] bool"""
    known: Tensor
    """[B, T] bool, the tokens whose behavior log-prob is known."""
    age: Tensor
    """[B] int64"""

    @staticmethod
    def of(batch: LossBatch) -> Counted:
        """Of a batch, copied from its device if it is not on the CPU."""
        return Counted(batch.mask.cpu(), known_behavior(batch).cpu(), batch.age.cpu())

    def rows(self, index: Tensor) -> Counted:
        """Of the rows at `index` ([b] int64)."""
        return Counted(self.mask[index], self.known[index], self.age[index])


def known_behavior(batch: LossBatch) -> Tensor:
    """The valid tokens of which it is known how likely they were when they were sampled, [B, T].

    Nobody knows that of demonstrations, and NaN stands where a file does not say.
    """
    return batch.mask & ~batch.expert[:, None] & ~batch.behavior_logp.isnan()


@torch.no_grad()
def loss_sums(
    metrics: Mapping[str, Tensor],
    logp: Tensor,
    batch: LossBatch,
    anchor: AnchorPolicy[Any] | None,
    step: int,
    counted: Counted | None = None,
) -> list[tuple[str, Tensor | float, float]]:
    """The loss's own metrics, the ratio to the behavior policy where known, and the anchor's KL."""
    counted = counted or Counted.of(batch)
    found = {name: value.detach() for name, value in metrics.items()}
    if anchor is not None and anchor.references(step):
        values = anchor.metrics(logp.detach(), batch, step)
        found |= {f"anchor/{name}": value for name, value in values.items()}
    sums = _by_age(found, counted.mask, counted.age)
    if "policy/ratio_mean" not in found:
        ratio = masked_log_ratio(logp.detach(), batch.behavior_logp, batch.mask, CLAMP).exp()
        ratios = {"policy/ratio_mean": ratio, "policy/ratio_max": ratio}
        sums += _by_age(ratios, counted.known, counted.age)
    return sums


def _by_age(
    values: Mapping[str, Tensor], mask: Tensor, ages: Tensor
) -> list[tuple[str, Tensor | float, float]]:
    """Shares of some metrics over a mask, and of those in BY_AGE for each age too."""
    sums = sums_of(values, mask)
    for age in sorted(set(ages.tolist())):
        chosen = {f"{name}_age_{age}": values[name] for name in BY_AGE if name in values}
        sums += sums_of(chosen, mask & (ages == age)[:, None])
    return sums


def first_pass_metrics(terms: PolicyTerms, batch: LossBatch) -> dict[str, float]:
    """Entropy, and how far the policy was from the behavior policy when it first met the batch.

    `terms` [B, T] are the policy's in the first pass. Nothing of the behavior policy if it is not
    known of any token.
    """
    behavior, known = batch.behavior_logp, known_behavior(batch)
    entropy = {"policy/entropy": float(masked_mean(terms.entropy, batch.mask))}
    if not known.any() and batch.mask.any():
        return entropy
    log_ratio = (terms.logp - behavior).clamp(-CLAMP, CLAMP)
    kl = kl_value(behavior, terms.logp, known, "k3")
    return {
        **entropy,
        "off_policy/ess": float(effective_sample_size(log_ratio, known)),
        "off_policy/kl": float(masked_mean(kl, known)),
    }


def engine_mismatch(batch: LossBatch, own: Tensor, rows: Tensor) -> dict[str, float]:
    """How far the engine's log-probs of some rows ([B] bool) are from the trainer's own [B, T].

    Their KL by k3, and the mean and largest |difference|, in nats per token.
    """
    if not rows.any():
        return {}
    engine, mask = batch.behavior_logp, batch.mask & rows[:, None]
    difference = torch.where(mask, engine - own, 0.0).abs()
    return {
        "off_policy/engine_kl": float(masked_mean(kl_value(engine, own, mask, "k3"), mask)),
        "off_policy/engine_difference_mean": float(masked_mean(difference, mask)),
        "off_policy/engine_difference_max": float(difference.max()),
    }


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask; 0 if the returns do not vary.

    A spread that is only rounding counts as none.
    """
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    error = returns - values
    left = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    varies = spread > ROUNDING * masked_mean(returns**2 + values**2, mask)
    return float(1 - left / spread) if varies else 0.0


def mean_steps(steps: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The mean loss and gradient norm of the optimizer steps that were taken, if any."""
    if not steps:
        return {}
    return {
        "policy/loss": sum(loss for loss, _ in steps) / len(steps),
        "policy/grad_norm": sum(norm for _, norm in steps) / len(steps),
    }


@dataclass
class RolloutTally:
    """Counts of the responses a step generated."""

    rollouts: int = 0
    tokens: int = 0
    truncated: int = 0
    rewards: list[float] = field(default_factory=list)
    components: dict[str, list[float]] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    """What rewards report: errors, timeouts, lost workers, and others by their own names."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """The largest mean of each reward that is a cost with a limit."""
    turns: TurnTally = field(default_factory=TurnTally)

    def count(
        self,
        generation: Generation,
        total: float | None,
        components: Mapping[str, float],
        labels: Sequence[str] = (),
    ) -> None:
        """Count a response of the policy, with its rewards and what its total also counts for."""
        self.rollouts += 1
        self.tokens += generation.own_tokens
        self.truncated += generation.finish_reason == "length"
        self.turns.count(generation, total)
        if total is None:
            return
        self.rewards.append(total)
        for name, value in {**components, **dict.fromkeys(labels, total)}.items():
            self.components.setdefault(name, []).append(value)

    def happened(self, events: Mapping[str, int]) -> None:
        """Count what rewards report."""
        for name, count in events.items():
            self.events[name] = self.events.get(name, 0) + count

    def metrics(self) -> dict[str, float]:
        """reward/* and completions/* over every generated response.

        A step that generates nothing has no mean reward.
        """
        out: dict[str, float] = {}
        if self.rollouts:
            reward = torch.tensor(self.rewards or [0.0])
            out = {
                "reward/mean": float(reward.mean()),
                "reward/std": float(reward.std(correction=0)),
                "completions/mean_length": self.tokens / self.rollouts,
                "completions/clipped_ratio": self.truncated / self.rollouts,
            }
        means = {name: sum(v) / len(v) for name, v in self.components.items()}
        out |= {f"reward/{name}/mean": mean for name, mean in means.items()}
        limits = {name: limit for name, limit in self.limits.items() if name in means}
        out |= {f"reward/{n}/violation": means[n] - limit for n, limit in limits.items()}
        out |= self.turns.metrics()
        events = {
            f"reward/{name}": float(self.events.get(name, 0))
            for name in ("errors", "timeouts", "lost", *self.events)
        }
        return out | {name: count for name, count in events.items() if name not in out}


def data_metrics(samples: Sequence[Sample], replayed: Tensor, step: int) -> dict[str, float]:
    """How fresh a trained batch is; ages are in training steps since a response was generated."""
    ages = [step - sample.step for sample in samples]
    return {
        "buffer/fresh_fraction": int((~replayed).sum()) / len(ages),
        "buffer/age_mean": sum(ages) / len(ages),
        "buffer/age_max": float(max(ages)),
    }


def scheduled(values: Mapping[str, float]) -> dict[str, float]:
    """The config fields that schedules have set ("anchor.beta"), as schedule/<field>.

    The multiplier of a reward with a limit is reward/<name>/multiplier.
    """
    out = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        kind, _, label = section.partition(".")
        moved = kind == "reward" and key == "multiplier"
        out[multiplier_key(label) if moved else f"schedule/{name}"] = value
    return out


def staleness(samples: Sequence[Sample], step: int) -> dict[str, float]:
    """How old the weights are that sampled the batch's tokens, in training steps.

    Over the policy's own tokens (`policy_version` of each): mean and maximum of step - version.
    Status: our choice (AReaL and prime-rl count the same, per token).
    """
    own = [s.policy_version[s.loss_mask] for s in samples if s.source != "expert"]
    ages = step - torch.cat(own).float() if own else torch.zeros(0)
    if not len(ages):
        return {}
    return {
        "off_policy/staleness_mean": float(ages.mean()),
        "off_policy/staleness_max": float(ages.max()),
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: the device's on CUDA, the process's resident set elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
