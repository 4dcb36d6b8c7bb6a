"""Statistics of the rows that answer the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def places(group: Tensor) -> Tensor:
    """The place of each row's group among B places, [B] int64: how many rows have a lower number.

    Unlike numbers without gaps it does not need the host to know how many groups there are.
    """
    return torch.searchsorted(group.sort().values, group)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """Sum of x [B] over the rows of the same group, broadcast back to each row [B]."""
    place = places(group)
    return torch.zeros_like(x).index_add(0, place, x)[place]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of x [B] over the rows of the same group, broadcast back to each row [B]."""
    return group_sum(x, group) / group_size(group, x.dtype)


def group_max(x: Tensor, group: Tensor) -> Tensor:
    """Maximum of x [B] over the rows of the same group, broadcast back to each row [B]."""
    place = places(group)
    return torch.full_like(x, -torch.inf).scatter_reduce(0, place, x, "amax")[place]


def group_log_mean_exp(x: Tensor, group: Tensor) -> Tensor:
    """log mean exp(x) over the rows of the same group, without overflow, for each row [B]."""
    top = group_max(x, group)
    return top + group_mean((x - top).exp(), group).log()


def group_size(group: Tensor, dtype: torch.dtype) -> Tensor:
    """How many rows are in each row's group [B]."""
    return group_sum(torch.ones_like(group), group).to(dtype)


def apart(group: Tensor, counted: Tensor) -> Tensor:
    """Group numbers [B] under which every row that is not `counted` ([B] bool) stands alone."""
    free = group.max() + 1 + torch.arange(len(group), device=group.device)
    return torch.where(counted, group, free)


def group_share(group: Tensor, dtype: torch.dtype, counted: Tensor | None = None) -> Tensor:
    """The weight [B] that turns a mean over rows into a mean over groups of the groups' means.

    It is rows / (number of groups * size of the row's group): 1 if all groups have the same size.
    Only the `counted` rows ([B] bool) have a place in it, if given; the others stand `apart`.
    """
    members = torch.ones_like(group) if counted is None else counted.to(group.dtype)
    found = torch.zeros_like(group).index_add(0, places(group), members)
    groups = (found > 0).sum().clamp(min=1)
    return (groups * group_size(group, dtype)).reciprocal() * members.sum()


def group_centred(x: Tensor, group: Tensor) -> Tensor:
    """x [B] minus its group's mean, exactly 0 if the values of the group are equal up to rounding.

    Rounding would leave 1e-9 there, which dividing by the group's spread would blow up.
    """
    place = places(group)
    member = torch.zeros_like(x).index_put((place,), x)[place]
    shifted = x - member
    centred = shifted - group_mean(shifted, group)
    differ = is_spread(group_max(centred.abs(), group), group_max(x.abs(), group))
    return torch.where(differ, centred, 0.0)


def is_spread(largest: Tensor, size: Tensor) -> Tensor:
    """Whether a largest distance to the mean is more than the rounding of numbers of this size."""
    return largest > torch.finfo(size.dtype).eps * size
