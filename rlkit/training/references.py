"""The log-probs that parts read besides the policy's own: of pi_k and of an anchor's references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch, Sample
from rlkit.distributed.processes import ALONE, Processes
from rlkit.interfaces import AdvantageEstimator, AnchorPolicy, Correction, PolicyLoss
from rlkit.models.policy import FrozenPolicy, Policy
from rlkit.models.tokens import Tokens
from rlkit.ops import kl_value, masked_mean
from rlkit.training.micro_batches import micro_batches


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The responses of some groups as tensors."""

    samples: Sequence[Sample]
    tokens: Tokens
    batch: LossBatch
    """Without advantages; prox_logp is behavior_logp."""


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


CACHED = "anchor_logp:"
"""How the keys of `Sample.extras` begin under which log-probs of a reference are kept."""


@dataclass(frozen=True)
class Kept:
    """Log-probs under a frozen reference, kept with the samples while it stays the same."""

    name: str
    number: int | None
    """Which policy the name stands for; None = one that moves, so nothing is kept."""

    @property
    def key(self) -> str:
        """Where a sample keeps them."""
        return f"{CACHED}{self.name}:{self.number}"

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
