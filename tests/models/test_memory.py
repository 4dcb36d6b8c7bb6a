"""What counts as out of memory, and what the user is told of it."""

from __future__ import annotations

import pytest
import torch

from rlkit.errors import UserError
from rlkit.models.memory import OPTIMIZER, explained, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp:119"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_the_user_is_told_where_and_what_to_do_in_one_line() -> None:
    with pytest.raises(UserError) as told, explained(OPTIMIZER):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
    assert str(told.value) == f"out of memory {OPTIMIZER}" and "\n" not in str(told.value)
    assert isinstance(told.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(OPTIMIZER):
        raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(UserError, match="lower it"), explained(OPTIMIZER):
        raise UserError("lower it")
