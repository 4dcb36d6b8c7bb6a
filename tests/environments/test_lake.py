from __future__ import annotations

import random

import pytest

from rlkit.environments.lake import RULES, Lake, drawn, reached


def shown(text: str) -> list[str]:
    return text.removeprefix(RULES).strip().split("\n")


@pytest.mark.parametrize(("size", "holes"), [(2, 0.0), (4, 0.3), (6, 0.55)])
def test_every_lake_has_a_way(size: int, holes: float) -> None:
    for seed in range(20):
        cells = drawn(random.Random(seed), size, holes)
        assert len(cells) == size * size and cells[0, 0] == "."
        assert cells[size - 1, size - 1] == "G" and (size - 1, size - 1) in reached(cells)


def test_a_hole_is_no_way() -> None:
    cells = {(0, 0): ".", (0, 1): "O", (1, 0): "O", (1, 1): "G"}
    assert reached(cells) == {(0, 0)}


def test_a_game_is_won_at_the_goal_and_lost_in_a_hole() -> None:
    lake = Lake(size=2, holes=0.0, slippery=0.0)
    assert shown(lake.reset(3)) == ["P.", ".G"] and not lake.done
    assert lake.turn_state == "P.\n.G", "without the rules"
    assert shown(lake.move("left")) == ["P.", ".G"]  # the edge stops
    assert shown(lake.move("right")) == [".P", ".G"] and lake.get_reward() == 0
    assert shown(lake.move("down")) == ["..", ".P"]
    assert lake.done and lake.get_reward() == 1
    with pytest.raises(ValueError, match="up, down, left, right"):
        lake.move("north")
    lake._cells, lake._place = {(0, 0): ".", (0, 1): "O", (1, 0): ".", (1, 1): "G"}, (0, 0)
    lake.move("right")
    assert lake.done and lake.get_reward() == 0


def test_a_problem_is_one_lake_and_others_come_from_the_global_draws() -> None:
    lake = Lake(size=5, holes=0.4, slippery=0.0)
    first = lake.reset(7)
    assert lake.reset(7) == first != lake.reset(8)
    random.seed(1)
    free = lake.reset()
    assert lake.reset() != free
    random.seed(1)
    assert lake.reset() == free


def test_ice_may_be_slippery() -> None:
    lake = Lake(size=20, holes=0.0, slippery=1.0)
    lake.reset(0)
    random.seed(0)
    for _ in range(200):
        lake.move("right")
    row, column = lake._place
    assert row > 0 and column < 19  # not always to the right
