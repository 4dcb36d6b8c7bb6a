"""A KL penalty that is taken from the rewards, and parts that it does not suit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlkit.composition.describe import describe
from rlkit.composition.penalties import is_in_rewards
from rlkit.errors import UserError
from rlkit.registry import build, names
from rlkit.testing.losses import examples, value_and_grad
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


def warned(*overrides: str) -> list[str]:
    """The warnings of a run whose penalty is taken from the rewards."""
    lines = describe(composed("anchor=kl_in_reward", *overrides))
    return [line for line in lines if "placement=reward" in line]


@pytest.mark.parametrize(
    ("advantage", "divides"),
    [
        (["advantage=group_norm"], True),
        (["advantage=group_norm", "advantage.std=batch"], False),
        (["advantage=group_norm", "advantage.std=none"], False),
        (["advantage=group_mean"], False),
        (["advantage=gigpo"], True),
        (["advantage=gigpo", "advantage.std=none"], False),
        (["advantage=grpo_passk"], True),
        (["advantage=grpo_passk", "advantage.std=false"], False),
        (["advantage=spear"], False),
        (["advantage=spear", "advantage.std=group"], True),
        (["advantage=rloo"], False),
    ],
)
def test_a_penalty_that_a_spread_may_blow_up_is_warned_of(
    advantage: list[str], divides: bool
) -> None:
    found = warned("loss=ppo", *advantage)
    assert [f"{advantage[0]} divides by each group's spread" in line for line in found] == (
        [True] * divides
    )
    assert not [line for line in describe(composed(*advantage)) if "spread" in line]


@pytest.mark.parametrize(
    "parts", [("loss=sft",), ("loss=online_dpo",), ("loss=ppo", "advantage=gdpo")]
)
def test_a_penalty_that_nothing_reads_is_warned_of(parts: tuple[str, ...]) -> None:
    (line,) = warned(*parts)
    assert f"and {parts[-1]} reads them without it" in line


@pytest.mark.parametrize("name", names("loss"))
def test_losses_without_advantages_say_that_they_see_no_penalty(name: str) -> None:
    loss = build("loss", name)
    logp, batch = examples(loss.needs)
    other = replace(batch, advantage=torch.where(batch.mask, 1.5 * batch.advantage - 0.3, 0.0))
    before, after = (value_and_grad(loss, logp, b) for b in (batch, other))
    assert (not torch.equal(before[1], after[1])) == loss.sees_penalty
