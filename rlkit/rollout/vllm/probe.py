"""The check after every weight sync: the engine has the trainer's weights and computes with them.

A sync that loses a layer is otherwise silent: sampling continues with weights that are not the
policy's. Status: our choice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.rollout.precision import rounding_bound
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig

log = logging.getLogger(__name__)
LENGTH = 32
NAMED = 3
"""How many weights a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an engine says about itself after a weight sync."""

    logp: Tensor
    """Its log-probs of the probe, [LENGTH - 1]."""
    stale_head: float
    """The worker's `rlkit_stale_head`."""
    dtype: torch.dtype
    """What it computes in."""
    report: Mapping[str, Any]
    """What the worker's `rlkit_take` returned."""


class Probe:
    """A fixed sequence of random tokens and the trainer's log-probs of it.

    `check` holds against each other: the checksums of the weights sent and received; those of the
    weights received and held, where the engine keeps them in a form that can be compared; the
    product of the LM head and of its weights; and both sides' log-probs.
    """

    def __init__(self, policy: Policy, config: VLLMSamplingConfig, asker: Asker) -> None:
        self.policy, self.config = policy, config
        drawn = stream_rng(asker.seed, "rollout/probe").integers(asker.vocabulary, size=LENGTH)
        self.ids: list[int] = drawn.tolist()
        self.logp: Tensor | None = None
        self.previous: Tensor | None = None
        self.bounds: dict[torch.dtype, float] = {}
        """By the engine's dtype, measured when a difference is above the last one."""
        self.unlike: dict[str, set[str]] = {}
        """By engine: weights it holds in a form that the first sync found not to be comparable."""
        self.alone = threading.Lock()  # servers are checked at the same time

    @property
    def tokens(self) -> Tokens:
        """The sequence; all but its first token are scored."""
        first, rest = torch.tensor(self.ids[:1]), torch.tensor(self.ids[1:])
        return Tokens.of([first], [rest])

    def score(self) -> None:
        """Take the trainer's log-probs of the policy as it is now."""
        self.previous = self.logp
        self.logp = self.policy.logp(self.tokens)[0].cpu()

    def difference(self, logp: Tensor) -> float:
        """The largest difference from the trainer's log-probs, in nats per token."""
        assert self.logp is not None
        return float((logp - self.logp).abs().max())

    def bound(self, dtype: torch.dtype, found: float = 0.0) -> float:
        """How large a difference from an engine of a dtype may be.

        Measured on the policy as it is now if `found` is above what it was before.
        """
        if self.config.sync_tolerance is not None:
            return self.config.sync_tolerance
        with self.alone:
            if found > self.bounds.get(dtype, -1.0):
                self.bounds[dtype] = rounding_bound(self.policy, self.tokens, dtype)
            return self.bounds[dtype]

    def check(
        self, evidence: Evidence, engine: str, step: int, sent: Mapping[str, int] | None = None
    ) -> float:
        """The largest difference from an engine's log-probs.

        `sent` are the checksums of what it was given, if it did not get the tensors themselves.
        Raises UserError with the likely cause if something differs.
        """
        cause = self._weights(evidence.report, engine, sent)
        if evidence.stale_head > 1:
            cause = "its packed copy of the LM head is not that of the new weights"
        found = self.difference(evidence.logp)
        bound = self.bound(evidence.dtype, found)
        if cause is None and found <= bound:
            return found
        raise UserError(
            f"{engine} and the trainer differ by {found:.3g} nats on the probe after the weight "
            f"sync before step {step} (rounding explains {bound:.3g}; rollout.sync_tolerance sets "
            f"another bound): {cause or self._cause(evidence.logp, bound)}"
        )

    def _weights(
        self, report: Mapping[str, Any], engine: str, sent: Mapping[str, int] | None
    ) -> str | None:
        """What is wrong with the weights an engine received or holds, if anything is."""
        received = report["received"]
        if sent is not None and sent != received:
            names = sorted(n for n in {**sent, **received} if sent.get(n) != received.get(n))
            return f"it received other weights than were sent: {_first(names)}"
        if engine not in self.unlike:
            self.unlike[engine] = set(report["different"])
            alike = len(report["compared"]) - len(report["different"])
            log.info("%s holds %d of %d weights as sent", engine, alike, len(received))
        wrong = [name for name in report["different"] if name not in self.unlike[engine]]
        return f"it does not hold the weights it received: {_first(wrong)}" if wrong else None

    def _cause(self, logp: Tensor, bound: float) -> str:
        if self.previous is not None and float((logp - self.previous).abs().max()) <= bound:
            return "it still has the weights of the previous sync"
        return "some of its weights are not the trainer's, or it computes them in another way"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
