"""A KL penalty that is taken from the rewards, and parts that it does not suit."""

from __future__ import annotations

import pytest

from rlkit.composition.penalties import is_in_rewards
from rlkit.errors import UserError
from tests.compositions import composed


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["anchor=kl_in_reward"], True),
        (["anchor=base"], False),
        (["anchor=none"], False),
        (["anchor=kl_in_reward", "anchor.beta=0"], False),
        (["anchor=kl_in_reward", "anchor.beta={kind: linear, start: 0, end: 0.1, steps: 9}"], True),
    ],
)
def test_whether_a_penalty_is_taken_from_the_rewards(overrides: list[str], expected: bool) -> None:
    assert is_in_rewards(composed("algorithm=grpo", *overrides)) == expected


def test_an_advantage_of_rewards_from_0_on_takes_no_penalty_from_them() -> None:
    composed("algorithm=maxrl", "anchor=base")
    with pytest.raises(UserError, match=r"placement=reward .* advantage=maxrl") as said:
        composed("algorithm=maxrl", "anchor=kl_in_reward")
    assert "set anchor.placement=loss" in str(said.value) and "\n" not in str(said.value)
