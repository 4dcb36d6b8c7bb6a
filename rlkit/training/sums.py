"""Shares of metrics that wait on their device, and their means over a step.

Unreduced metrics ([B, T] or [B]) are reduced by masked means, and by maxima if their key ends in
`_max`, over all rows of a step whatever the micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlkit.distributed.processes import Processes
from rlkit.errors import UserError

Sums = Sequence[tuple[str, Tensor | float, float]]
"""Key, total and count of one share of a metric; a maximum has the maximum as its total. Totals
stay on their device, so that nothing waits for it before a step's metrics are read."""


def sums_of(metrics: Mapping[str, Tensor], mask: Tensor) -> list[tuple[str, Tensor | float, float]]:
    """One share of each metric: values [B, T] over the mask, or [B] over its non-empty rows.

    The mask is on the CPU: what counts is known there, whatever device the values are on.
    """
    out: list[tuple[str, Tensor | float, float]] = []
    places = {mask.shape: places_of(mask), mask.shape[:1]: places_of(mask.any(-1))}
    for name, value in metrics.items():
        if value.shape not in places:
            raise UserError(
                f"the metric '{name}' has shape {list(value.shape)}; return it unreduced, one "
                "value per token [B, T] or per response [B]"
            )
        places[value.shape] = places[value.shape].to(value.device, non_blocking=True)
        chosen = value.detach().flatten()[places[value.shape]]
        if chosen.numel() and name.endswith("_max"):
            out.append((name, chosen.max(), 1.0))
        elif chosen.numel():
            out.append((name, chosen.double().sum(), float(chosen.numel())))
    return out


def places_of(mask: Tensor) -> Tensor:
    """Where a mask is true, [n] int64, counted row by row."""
    return mask.flatten().nonzero().squeeze(-1)


class MetricSums:
    """Running masked means, and maxima for keys ending in `_max`."""

    def __init__(self) -> None:
        self._shares: list[tuple[str, Tensor | float, float]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def plus(self, shares: Sums) -> MetricSums:
        """Add some shares; returns itself."""
        self._shares += shares
        return self

    def totals(self) -> tuple[dict[str, float], dict[str, float]]:
        """Sums and counts by key. All shares are fetched from their device at once."""
        waiting = [total.double() for _, total, _ in self._shares if isinstance(total, Tensor)]
        fetched = iter(torch.stack(waiting).tolist() if waiting else ())
        for name, share, count in self._shares:
            total = next(fetched) if isinstance(share, Tensor) else share
            if name.endswith("_max"):
                self._sums[name] = max(self._sums.get(name, float("-inf")), total)
                self._counts[name] = count
            else:
                self._sums[name] = self._sums.get(name, 0.0) + total
                self._counts[name] = self._counts.get(name, 0.0) + count
        self._shares = []
        return self._sums, self._counts

    def over(self, processes: Processes) -> MetricSums:
        """The sums over all ranks."""
        if processes.world_size == 1:
            return self
        out = MetricSums()
        for sums, counts in processes.all_gather(self.totals()):
            out.plus([(name, total, counts[name]) for name, total in sums.items()])
        return out

    def means(self) -> dict[str, float]:
        """The reduced metrics."""
        sums, counts = self.totals()
        return {name: total / counts[name] for name, total in sums.items()}
