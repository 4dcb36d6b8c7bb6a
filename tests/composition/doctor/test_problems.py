"""Which problems are looked at."""

from __future__ import annotations

import pytest

from rlkit.composition.doctor.problems import spread
from rlkit.errors import UserError
from tests.composition.doctor.patients import patient_of


def test_rows_are_spread_over_the_whole_set() -> None:
    rows = [{"n": i} for i in range(10)]
    assert [row["n"] for row in spread(rows, 4)] == [0, 2, 5, 7]
    assert [row["n"] for row in spread(rows, 20)] == list(range(10))


def test_too_long_problems_are_counted_and_not_drawn() -> None:
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "1+" * 20 + "1=", "answer": "21"}]
    looked = patient_of("rollout.max_prompt_length=8", rows=rows).problems
    assert list(looked.lengths) == [4, 42]
    assert [p.text_or_messages for p in looked.drawn(5, seed=0)] == ["1+1="]


def test_no_usable_problem_is_an_error() -> None:
    with pytest.raises(UserError, match="none of 6 problems looked at has a prompt of 1 to 3"):
        _ = patient_of("rollout.max_prompt_length=3").problems
