"""What a reward returned, as numbers; more in test_scoring.py."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.rewards.values import RowFailed, numbers_of


def test_numbers_are_counted_from_the_first_completion_of_the_call() -> None:
    assert numbers_of("r", [True, None], [0, 1]) == [1.0, None]
    with pytest.raises(UserError, match="reward 'r' returned nan for completion 7; it must be"):
        numbers_of("r", [float("nan")], [7])
    with pytest.raises(UserError, match="returned 1 values for 2 completions"):
        numbers_of("r", [1], [0, 1])


def test_the_error_of_a_row_knows_the_row() -> None:
    assert RowFailed(3).row == 3
