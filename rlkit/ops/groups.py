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


def group_share(group: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [B] that turns a mean over rows into a mean over groups of the groups' means.

    It is B / (number of groups * size of the row's group): 1 if all groups have the same size.
    """
    ordered = group.sort().values
    groups = 1 + (ordered[1:] != ordered[:-1]).sum()
    return len(group) / (groups * group_size(group, dtype))


def group_centred(x: Tensor, group: Tensor) -> Tensor:
    """x [B] minus its group's mean, exactly 0 if all values of the group are equal.

    Rounding in a plain mean would leave 1e-9 there, which dividing by the group's spread would blow
    up.
    """
    place = places(group)
    member = torch.zeros_like(x).index_put((place,), x)[place]
    shifted = x - member
    return shifted - group_mean(shifted, group)
