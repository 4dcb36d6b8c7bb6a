"""GiGPO by hand: episodes in their group, turns among those taken in the same state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import AdvantageBatch
from rlkit.errors import UserError
from rlkit.interfaces import TURN_REWARD, TURNS, turn_extras
from rlkit.registry import build
from rlkit.testing.advantages import examples
from tests.algorithms.advantages.hand import batch_of, one_a_row

Episode = tuple[float, Sequence[int]]
"""An episode's reward and the states of its turns."""


def batch(episodes: Sequence[Episode], group: Sequence[int] | None = None) -> AdvantageBatch:
    """Episodes of up to three turns, each of two tokens, one, two, with one shown after it."""
    numbers = torch.tensor([1, 1, 0, 2, 0, 3, 3])
    rows, masks = [], []
    for _, states in episodes:
        turn = torch.where(numbers <= len(states), numbers, 0)
        rows.append(turn_extras(turn, list(states)))
        masks.append(turn > 0)
    n = len(episodes)
    base = batch_of([reward for reward, _ in episodes], list(group or [0] * n))
    wide: dict[str, Any] = {
        name: torch.zeros(n, 7).double() for name in ("values", "behavior_logp", "prox_logp")
    }
    extras = {name: torch.stack([torch.as_tensor(r[name]) for r in rows]) for name in rows[0]}
    mask = torch.stack(masks)
    return replace(base, mask=mask, token_reward=torch.zeros(n, 7), extras=extras, **wide)


def by_turn(b: AdvantageBatch, **fields: Any) -> list[list[float]]:
    """Each turn's advantage, which all its tokens have, and those that were shown 0."""
    out = build("advantage", "gigpo", **fields)(b)
    assert (out.advantage[~b.mask] == 0).all()
    found = []
    for row in out.advantage.tolist():
        assert row[0] == row[1] and row[5] == row[6]
        found.append([row[0], row[3], row[5]])
    return found


def near(*rows: Sequence[float]) -> list[Any]:
    return [pytest.approx(list(row), abs=1e-5) for row in rows]


THREE = batch([(1.0, [7, 8]), (0.0, [7, 8]), (0.0, [7])])
PLAIN = {"std": "none", "gamma": 0.5}


def test_equal_states_are_compared_by_their_discounted_returns() -> None:
    """State 7: returns 1/2, 0, 0, mean 1/6. State 8: 1 and 0. Episodes: 2/3, -1/3, -1/3."""
    third = 1 / 3
    assert by_turn(THREE, omega=2.0, **PLAIN) == near(
        [2 * third + 2 * third, 2 * third + 1, 0],
        [-third - third, -third - 1, 0],
        [-2 * third, 0, 0],
    )


def test_both_are_divided_by_their_own_deviation() -> None:
    """Episodes: std sqrt(1/3). State 7: 1/2, 0, 0 has half of it. State 8: sqrt(1/2)."""
    a, b, half = (2 / 3) / (1 / 3) ** 0.5, (1 / 3) / (1 / 3) ** 0.5, 0.5**0.5
    found = by_turn(THREE, gamma=0.5)
    assert found == near([2 * a, a + half, 0], [-2 * b, -b - half, 0], [-2 * b, 0, 0])


def test_omega_zero_is_the_advantage_of_the_episode() -> None:
    for std in ("group", "none"):
        found = build("advantage", "gigpo", omega=0.0, std=std)(THREE).advantage
        assert torch.equal(found, build("advantage", "group_norm", std=std)(THREE).advantage)


def test_states_that_were_met_once_give_no_step_advantage() -> None:
    apart = batch([(1.0, [1, 2]), (0.0, [3, 4]), (0.0, [5])])
    for std in ("group", "none"):
        out = build("advantage", "gigpo", std=std)(apart)
        alone = build("advantage", "group_norm", std=std)(apart)
        assert torch.equal(out.advantage, alone.advantage)
        assert out.metrics == {"advantage/shared_states": 0.0, "advantage/step": 0.0}


def test_a_state_that_an_episode_returns_to_counts_at_each_visit() -> None:
    """One episode, states 7, 8, 7: returns 1/4, 1/2, 1 and the mean in 7 is 5/8."""
    found = by_turn(batch([(1.0, [7, 8, 7]), (1.0, [9])]), **PLAIN)
    assert found == near([-0.375, 0, 0.375], [0, 0, 0])


def test_states_of_other_groups_are_other_states() -> None:
    two = batch([(1.0, [7, 8]), (1.0, [7]), (0.0, [7, 8]), (0.0, [7])], [0, 0, 1, 1])
    found = by_turn(two, **PLAIN)
    assert found == near([-0.25, 0, 0], [0.25, 0, 0], [0, 0, 0], [0, 0, 0])


def test_states_may_differ_in_either_half_of_their_number() -> None:
    """Numbers that agree in the upper or the lower 24 bits are two states."""
    low, high, both = 3, 3 + 2**24, 2**47 + 2**24 - 1
    found = by_turn(batch([(1.0, [low, both]), (0.0, [high, both - 1])]), **PLAIN)
    assert found == near([0.5, 0.5, 0], [-0.5, -0.5, 0])
    same = by_turn(batch([(1.0, [low, both]), (0.0, [high, both])]), **PLAIN)
    assert same == near([0.5, 1.0, 0], [-0.5, -1.0, 0])


def with_rewards(b: AdvantageBatch, rewards: Sequence[Sequence[float]]) -> AdvantageBatch:
    """On the last tokens of the three turns."""
    given = torch.zeros(b.mask.shape)
    given[:, [1, 3, 6]] = torch.tensor(rewards)
    return replace(b, extras={**b.extras, TURN_REWARD: given})


def test_rewards_per_turn_and_what_they_leave_of_the_outcome() -> None:
    """Outcomes 1 and 0. The turns of the first earned 0.5 and 0.25, so 0.25 is left for its last:
    returns 0.5 + 0.5 * 0.5 and 0.5. The second earned 1 at once and so loses 1 at its end: 1/2, -1.
    """
    b = with_rewards(batch([(1.0, [7, 8]), (0.0, [7, 8])]), [[0.5, 0.25, 0], [1.0, 0.0, 0]])
    found = by_turn(b, **PLAIN)
    assert found == near([0.5 + 0.125, 0.5 + 0.75, 0], [-0.5 - 0.125, -0.5 - 0.75, 0])
    whole = by_turn(b, std="none", gamma=1.0)
    assert [row[0] for row in whole] == near([1.0, -1.0])[0], "in all a turn 1 returns the outcome"


def test_equal_returns_of_unequal_turns_are_equal_in_spite_of_rounding() -> None:
    """Each sums up to 0.1, and -0.9 + 1 is not 0.1 in float32; divided by their deviation the
    last digits would be advantages like any other."""
    plain = batch([(0.1, [7, 8])] * 4)
    rewards = with_rewards(plain, [[1, -1, 0], [-1, 1, 0], [0, 0, 0], [0.5, -0.5, 0]])
    found = by_turn(replace(rewards, reward=plain.reward.float()), gamma=1.0)
    assert [row[0] for row in found] == [0.0] * 4


def test_an_episode_may_count_once_for_each_of_its_turns() -> None:
    """Rewards 1, 0, 0 of two turns, two and one: the mean over five turns is 2/5."""
    found = by_turn(THREE, omega=0.0, std="none", episodes_count="per_turn")
    assert found == near([0.6, 0.6, 0], [-0.4, -0.4, 0], [-0.4, 0, 0])
    spread = (2 * 0.6**2 + 3 * 0.4**2) / 4
    found = by_turn(THREE, omega=0.0, episodes_count="per_turn")
    assert found[0][0] == pytest.approx(0.6 / spread**0.5, abs=1e-5)


def test_a_response_without_an_environment_is_one_turn_at_its_prompt() -> None:
    """Its step advantage is that of the episode: the sum is 1 + omega times as large."""
    single = batch_of([1.0, 0.0, 0.0, 3.0, 5.0, 5.0], [0, 0, 0, 0, 1, 1])
    for std in ("group", "none"):
        found = one_a_row(build("advantage", "gigpo", omega=0.5, std=std)(single))
        alone = one_a_row(build("advantage", "group_norm", std=std)(single))
        assert found == pytest.approx([1.5 * value for value in alone], abs=1e-6)
    assert build("advantage", "gigpo")(examples()).metrics["advantage/shared_states"] == 1.0


def test_turns_that_are_not_known_are_refused() -> None:
    unknown = replace(batch_of([1.0, 0.0], [0, 0]), extras={TURNS: torch.tensor([2.0, 1.0])})
    with pytest.raises(UserError, match="do not say which token is of which turn"):
        build("advantage", "gigpo")(unknown)
    one = replace(unknown, extras={TURNS: torch.tensor([1.0, 1.0])})
    assert build("advantage", "gigpo")(one).advantage.any()


def test_the_shares_of_turns_in_shared_states_are_logged() -> None:
    """Five turns of six stand in a shared state; |A_S| is 1/2 for all four of the first two."""
    b = batch([(1.0, [7, 8]), (0.0, [7, 8]), (0.5, [7, 6])])
    found = build("advantage", "gigpo", std="none", gamma=1.0)(b).metrics
    assert found["advantage/shared_states"] == pytest.approx(5 / 6)
    assert found["advantage/step"] == pytest.approx(4 * 0.5 / 6)


def test_the_order_of_responses_does_not_matter() -> None:
    order = torch.tensor([2, 0, 1])
    a, b = (build("advantage", "gigpo")(x).advantage for x in (THREE, THREE.rows(order)))
    torch.testing.assert_close(a[order], b)


@pytest.mark.parametrize("fields", [{"omega": -0.1}, {"gamma": 1.1}, {"std": "batch"}])
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("advantage", "gigpo", **fields)
