from __future__ import annotations

from typing import Any

import pytest

from rlkit.environments.calculator import Calculator
from rlkit.environments.local import Local
from rlkit.environments.mixed import Mixed
from rlkit.environments.reasoning_gym import ReasoningGymTries
from rlkit.errors import UserError
from rlkit.interfaces import Observation, PartConfig, Start
from tests.environments.asking import call, contents, opened, start


class Game(Local[None, PartConfig]):
    @property
    def scores(self) -> bool:
        return True

    def started(self, start: Start) -> tuple[None, str | None]:
        assert "environment" not in start.row
        return None, f"game {start.row['prompt']}"

    def answered(self, state: None, text: str) -> Observation:
        return Observation(said={}, done=True)

    def rewards(self, episodes: Any) -> list[float | None]:
        return [float(episode) for episode in episodes]

    def states(self, episodes: Any) -> list[str | None]:
        return [f"s{episode}" for episode in episodes]

    def turn_rewards(self, episodes: Any) -> list[float | None]:
        return [0.5 for episode in episodes]

    def handles(self, episodes: Any) -> list[Any]:
        return [f"h{episode}" for episode in episodes]

    def notes(self) -> list[str]:
        return ["a game"]


def test_each_row_goes_to_the_environment_that_it_names() -> None:
    mixed = opened(Mixed({"sums": Calculator(), "game": Game()}))
    assert mixed.scores and mixed.notes() == ["a game"]
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "environment": name} for name in ("game", "sums", "game")
    ]
    mixed.check(rows)
    assert [len(mixed.schemas(row)) for row in rows] == [0, 1, 0]
    starts = [start(i, **row) for i, row in enumerate(rows)]
    assert mixed.begin(starts) == ["game a", None, "game a"]
    sums, game = mixed.step([1, 2], [call("calculate", expression="1+2"), "move"])
    assert contents(sums) == ["3"] and game.done
    assert mixed.rewards([2, 1, 0]) == [2.0, None, 0.0]
    assert mixed.handles([2, 1]) == ["h2", None]
    assert mixed.states([2, 1]) == ["s2", None]
    assert mixed.turn_rewards([1, 0]) == [None, 0.5]
    mixed.end([0, 1, 1, 7])
    with pytest.raises(KeyError):
        mixed.rewards([1])
    assert mixed.rewards([2]) == [2.0]
    mixed.close()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "has no column 'environment'"),
        ({"environment": "gam"}, "Did you mean 'game'"),
        ({"environment": None}, "names the environment 'None'"),
    ],
)
def test_a_row_that_names_none_gets_one_line(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Mixed({"sums": Calculator(), "game": Game()}).check([row])
    assert "\n" not in str(error.value)


def test_each_environment_checks_its_own_rows() -> None:
    mixed = Mixed({"sums": Calculator(), "gym": ReasoningGymTries()})
    mixed.check([{"environment": "sums"}])
    with pytest.raises(UserError, match="task=reasoning_gym alone"):
        mixed.check([{"environment": "sums"}, {"environment": "gym"}])


def test_calls_have_one_format() -> None:
    compact = Game()
    compact.call_format = "compact"
    assert Mixed({"a": Game(), "gym": ReasoningGymTries()}).call_format == "auto"
    assert Mixed({"gym": ReasoningGymTries()}).call_format == "none"
    with pytest.raises(UserError, match=r"these have their own: a \(auto\), b \(compact\)"):
        Mixed({"a": Game(), "b": compact})
