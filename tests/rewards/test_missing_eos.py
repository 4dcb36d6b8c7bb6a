"""The reward `missing_eos`: a constant for responses that were cut off."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.registry import build


def test_only_a_response_that_was_cut_off_is_penalized() -> None:
    reward = build("reward", "missing_eos", penalty=0.5)
    values = reward(["p"] * 3, ["a", "b", "c"], finish_reasons=["length", "stop", "length"])
    assert values == [-0.5, 0.0, -0.5]


def test_the_default_is_one_and_a_negative_penalty_is_refused() -> None:
    assert build("reward", "missing_eos")(["p"], ["a"], finish_reasons=["length"]) == [-1.0]
    with pytest.raises(UserError, match="penalty"):
        build("reward", "missing_eos", penalty=-1)


def test_without_finish_reasons_it_cannot_say() -> None:
    with pytest.raises(UserError, match="'missing_eos' needs a column called 'finish_reasons'"):
        build("reward", "missing_eos")(["p"], ["a"], completion_ids=[[1]])
