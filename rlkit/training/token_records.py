"""What a loss saw of each token of a few groups, in the first and the last pass of a step.

It is copied from the forwards and the metrics of the updates: nothing is computed for it, and the
device is waited for once, after the updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.distributed.processes import Processes
from rlkit.ops import masked_ratio, stream_rng
from rlkit.training.metrics import CLAMP, known_behavior

METRICS = {"ratio": "policy/ratio_mean", "clipped": "policy/clip_fraction"}
"""The unreduced metrics of a loss that are kept."""
FIELDS = ("logp", *METRICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a loss saw of some rows of a batch, on the CPU."""

    rows: Tensor
    """[n] int64, rows of the batch."""
    loss: LossBatch
    """Those rows, with the prox_logp that the updates completed."""
    passes: Sequence[Mapping[str, Tensor]]
    """"logp" and, if the loss has such a metric, "ratio" and "clipped" [n, T]: of the first pass
    and, if there is another one, of the last. NaN for a row that a pass did not reach."""

    def ratio(self, number: int) -> Tensor:
        """[n, T], to the loss's denominator; to the behavior policy if the loss shows none.

        NaN at the tokens of a response whose behavior log-probs are not known.
        """
        found, loss = self.passes[number], self.loss
        if "ratio" in found:
            return found["ratio"]
        ratio = masked_ratio(found["logp"], loss.behavior_logp, loss.mask, CLAMP)
        return torch.where(loss.mask & ~known_behavior(loss), torch.nan, ratio)


def rows_of_groups(group: Tensor, groups: int, count: int, seed: int, step: int) -> Tensor:
    """The rows of at most `count` of a batch's groups, which the seed and the step decide.

    group [B] int64 as in `LossBatch`; returns [n] int64.
    """
    order = stream_rng(seed, "token_records", step).permutation(groups)
    return torch.isin(group, torch.from_numpy(order[:count])).nonzero().squeeze(-1)


class TokenRecorder:
    """Copies what a loss sees of some rows of a batch. Without rows it does nothing."""

    def __init__(self, rows: Tensor, loss: LossBatch, passes: int, device: torch.device) -> None:
        self.rows, self.passes = rows, passes
        self.place = torch.full(loss.mask.shape[:1], -1)
        self.place[rows] = torch.arange(len(rows))
        kept = min(passes, 2)
        shape = (kept, len(FIELDS), len(rows), loss.mask.shape[1])
        self.values = torch.full(shape, float("nan"), device=device)
        self.filled = torch.zeros(kept, len(FIELDS), len(rows), dtype=torch.bool)
        self.number = 0
        self.minibatch = rows

    def begin(self, number: int, rows: Tensor) -> None:
        """A minibatch of pass `number` begins: these rows of the batch."""
        self.number, self.minibatch = number, rows

    def note(self, rows: Tensor, logp: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """Rows of the minibatch, [b] int64, with their log-probs [b, T] and unreduced metrics.

        Those of an attempt that is repeated are overwritten.
        """
        last = self.number == self.passes - 1
        if not len(self.rows) or (self.number > 0 and not last):
            return
        places = self.place[self.minibatch[rows]]
        kept = (places >= 0).nonzero().squeeze(-1)
        places, slot = places[kept], min(self.number, 1)
        found = {"logp": logp} | {
            field: metrics[name] for field, name in METRICS.items() if name in metrics
        }
        for number, field in enumerate(FIELDS) if len(kept) else ():
            if field in found:
                value = found[field].detach()[kept].to(self.values.dtype)
                self.values[slot, number, places] = value if value.dim() > 1 else value[:, None]
                self.filled[slot, number, places] = True

    def seen(self, batch: LossBatch, processes: Processes) -> Seen | None:
        """What all ranks have noted; None without rows. Every rank must call it."""
        if not len(self.rows):
            return None
        values, filled = self.values.cpu(), self.filled.clone()
        for theirs, known in processes.all_gather((values, self.filled)):
            values = torch.where(known[..., None], theirs, values)
            filled |= known
        passes = [
            {name: v for name, v, any_row in zip(FIELDS, each, has, strict=True) if any_row}
            for each, has in zip(values, filled.any(-1).tolist(), strict=True)
        ]
        reached = [each for each in passes if each]
        return Seen(rows=self.rows, loss=batch.rows(self.rows), passes=reached)
