"""Where the responses of a batch lie: one row per request, one column per response."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """b live responses on a grid of R requests by n places; places whose response left are holes.

    So the responses of a request stand together, and one matrix product serves them all.
    """

    request: Tensor
    """[b] row of each live response, ascending; on the CPU"""
    place: Tensor
    """[b] its column; on the CPU"""
    requests: int
    places: int
    index: tuple[Tensor, Tensor]
    """The same two on the device."""

    @staticmethod
    def of(request: Tensor, device: torch.device) -> Grid:
        """The smallest grid of responses whose requests [b] are numbered 0, 1, ... without gap."""
        counts = torch.bincount(request)
        place = torch.arange(len(request)) - (counts.cumsum(0) - counts)[request]
        index = request.to(device), place.to(device)
        return Grid(request, place, len(counts), int(counts.max()), index)

    @property
    def full(self) -> bool:
        """Whether there is no hole."""
        return len(self.request) == self.requests * self.places

    def keep(self, chosen: Tensor, device: torch.device) -> Grid:
        """The responses at `chosen`, [b'] ascending, where they are."""
        request, place = self.request[chosen], self.place[chosen]
        index = request.to(device), place.to(device)
        return Grid(request, place, self.requests, self.places, index)

    def spread(self, each: Tensor) -> Tensor:
        """From [b, heads, ...] to [R, heads, n, ...]; zeros in holes."""
        if self.full:
            return each.view(self.requests, self.places, *each.shape[1:]).transpose(1, 2)
        heads, *rest = each.shape[1:]
        out = each.new_zeros(self.requests, heads, self.places, *rest)
        row, column = self.index
        out[row, :, column] = each
        return out

    def gather(self, spread: Tensor) -> Tensor:
        """From [R, heads, n, ...] to [b, heads, ...]."""
        if self.full:
            return spread.transpose(1, 2).flatten(0, 1)
        row, column = self.index
        return spread[row, :, column]

    def write(self, into: Tensor, each: Tensor) -> None:
        """Puts [b, heads, d] into [R, heads, n, d], leaving the holes as they are."""
        if self.full:
            into.copy_(self.spread(each))
        else:
            row, column = self.index
            into[row, :, column] = each.to(into.dtype)
