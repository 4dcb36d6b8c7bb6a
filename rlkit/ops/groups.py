"""Statistics of the rows that answer the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """Sum of x [B] over the rows of the same group, broadcast back to each row [B]."""
    index, inverse = torch.unique(group, return_inverse=True)
    return x.new_zeros(len(index)).index_add(0, inverse, x)[inverse]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of x [B] over the rows of the same group, broadcast back to each row [B]."""
    return group_sum(x, group) / group_size(group, x.dtype)


def group_max(x: Tensor, group: Tensor) -> Tensor:
    """Maximum of x [B] over the rows of the same group, broadcast back to each row [B]."""
    index, inverse = torch.unique(group, return_inverse=True)
    lowest = x.new_full((len(index),), -torch.inf)
    return lowest.scatter_reduce(0, inverse, x, "amax")[inverse]


def group_log_mean_exp(x: Tensor, group: Tensor) -> Tensor:
    """log mean exp(x) over the rows of the same group, without overflow, for each row [B]."""
    top = group_max(x, group)
    return top + group_mean((x - top).exp(), group).log()


def group_size(group: Tensor, dtype: torch.dtype) -> Tensor:
    """How many rows are in each row's group [B]."""
    inverse: Tensor = torch.unique(group, return_inverse=True)[1]
    return torch.bincount(inverse).to(dtype)[inverse]


def group_share(group: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [B] that turns a mean over rows into a mean over groups of the groups' means.

    It is B / (number of groups * size of the row's group): 1 if all groups have the same size.
    """
    return len(group) / (len(torch.unique(group)) * group_size(group, dtype))


def group_centred(x: Tensor, group: Tensor) -> Tensor:
    """x [B] minus its group's mean, exactly 0 if all values of the group are equal.

    Rounding in a plain mean would leave 1e-9 there, which dividing by the group's spread would blow
    up.
    """
    index, inverse = torch.unique(group, return_inverse=True)
    member = x.new_zeros(len(index)).index_put((inverse,), x)[inverse]
    shifted = x - member
    return shifted - group_mean(shifted, group)
