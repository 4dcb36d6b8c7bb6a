"""Log-probs under a frozen reference, which are computed once for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.batch import CACHED, Sample
from rlkit.interfaces import Reference, Tokens
from rlkit.models.policy import FrozenPolicy
from rlkit.training.micro_batches import Forwards


@dataclass(frozen=True)
class CachedLogprobs:
    """Log-probs under a frozen reference, cached with the samples while it stays the same."""

    name: str
    number: int | None
    """Which policy the name stands for; None = one that moves, so nothing is cached."""

    @property
    def key(self) -> str:
        """Their key in `Sample.extras`."""
        return f"{CACHED}{self.name}:{self.number}"

    def logp(
        self, reference: Reference, samples: Sequence[Sample], tokens: Tokens, forwards: Forwards
    ) -> Tensor:
        """[B, T]; only samples that do not have them yet cost a forward."""
        caches = self.number is not None
        missing = [i for i, s in enumerate(samples) if not caches or self.key not in s.extras]
        out = torch.zeros(tokens.response_ids.shape)
        if missing:
            layout = reference.layout if isinstance(reference, FrozenPolicy) else "padded"
            rows = torch.tensor(missing)
            out[missing] = forwards.by_rows(reference.logp, tokens, rows, layout=layout)
        for i, sample in enumerate(samples) if caches else ():
            length = len(sample.response_ids)
            if self.key in sample.extras:
                out[i, :length] = torch.as_tensor(sample.extras[self.key])
            else:
                self._store(sample, out[i, :length].clone())
        return out

    def _store(self, sample: Sample, logp: Tensor) -> None:
        """Store them in place of those under an earlier policy of the same name."""
        stem = self.key.rpartition(":")[0] + ":"
        for key in [key for key in sample.extras if key.startswith(stem)]:
            del sample.extras[key]
        sample.extras[self.key] = logp
