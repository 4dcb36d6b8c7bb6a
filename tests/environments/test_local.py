from __future__ import annotations

import pytest

from rlkit.environments.local import Local
from rlkit.interfaces import Observation, PartConfig, Start
from tests.environments.asking import start


class Echo(Local[list[str], PartConfig]):
    def started(self, start: Start) -> tuple[list[str], str | None]:
        return [str(start.row["prompt"])], f"begin {start.episode}"

    def answered(self, state: list[str], text: str) -> Observation:
        state.append(text)
        return Observation(said={}, messages=[{"role": "user", "content": " ".join(state)}])


def test_each_episode_has_its_own_state() -> None:
    echo = Echo()
    assert echo.begin([start(1), start(2)]) == ["begin 1", "begin 2"]
    first, second = echo.step([2, 1], ["a", "b"])
    assert (first.messages[0]["content"], second.messages[0]["content"]) == ("p a", "p b")
    assert echo.held([1, 2]) == [["p", "b"], ["p", "a"]]
    echo.begin([start(1)])
    assert echo.held([1]) == [["p"]]
    echo.end([1, 1, 5])
    with pytest.raises(KeyError):
        echo.held([1])
