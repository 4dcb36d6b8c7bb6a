"""The check after every weight sync: both sides score one short sequence and must agree.

A sync that loses a layer is otherwise silent: sampling continues with weights that are not the
policy's. Status: our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig

LENGTH = 32
TOLERANCE_FLOAT32, TOLERANCE_HALF = 1e-3, 0.3


class Probe:
    """A fixed sequence of random tokens and the trainer's log-probs of it."""

    def __init__(self, policy: Policy, config: VLLMSamplingConfig, asker: Asker) -> None:
        self.policy = policy
        drawn = stream_rng(asker.seed, "rollout/probe").integers(asker.vocabulary, size=LENGTH)
        self.ids: list[int] = drawn.tolist()
        full = policy.model.dtype == torch.float32
        self.tolerance = config.sync_tolerance or (TOLERANCE_FLOAT32 if full else TOLERANCE_HALF)
        self.logp: Tensor | None = None
        self.previous: Tensor | None = None

    def score(self) -> None:
        """Take the trainer's log-probs of the policy as it is now."""
        first, rest = torch.tensor(self.ids[:1]), torch.tensor(self.ids[1:])
        self.previous = self.logp
        self.logp = self.policy.logp(Tokens.of([first], [rest]))[0].cpu()

    def difference(self, logp: Tensor) -> float:
        """The largest difference from the trainer's log-probs, in nats per token."""
        assert self.logp is not None
        return float((logp - self.logp).abs().max())

    def check(self, logp: Tensor, stale_head: float, engine: str, step: int) -> float:
        """The difference from an engine's log-probs [LENGTH - 1].

        `stale_head` is the worker's `rlkit_stale_head`. Raises UserError above the tolerance, with
        the likely cause.
        """
        found = self.difference(logp)
        if found <= self.tolerance:
            return found
        raise UserError(
            f"{engine} and the trainer differ by {found:.3g} nats on the probe after the weight "
            f"sync before step {step} (rollout.sync_tolerance is {self.tolerance:g}): "
            f"{self._cause(logp, stale_head)}"
        )

    def _cause(self, logp: Tensor, stale_head: float) -> str:
        if stale_head > self.tolerance:
            return "its packed copy of the LM head is not that of the new weights"
        if self.previous is not None and self._is(logp, self.previous):
            return "it still has the weights of the previous sync"
        return (
            "some of its weights are not the trainer's, or it computes with another precision; "
            "compare model.dtype with the engine's and with rollout.sync_tolerance"
        )

    def _is(self, logp: Tensor, other: Tensor) -> bool:
        return float((logp - other).abs().max()) <= self.tolerance
