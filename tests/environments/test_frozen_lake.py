from __future__ import annotations

from rlkit.environments.frozen_lake import FrozenLake, FrozenLakeConfig
from rlkit.environments.host import found, tool_names
from rlkit.environments.own import bound, schema
from tests.environments.asking import call, contents, opened, start


def test_a_game_from_the_start_to_the_reward() -> None:
    lake = opened(FrozenLake(FrozenLakeConfig(size=2, holes=0.0)))
    told = lake.begin([start(1, problem=5), start(2, problem=5)])
    assert told[0] == told[1] and str(told[0]).endswith("P.\n.G")
    first = lake.states([1, 2])
    assert first[0] == first[1] is not None
    (stays,) = lake.step([2], [call("move", direction="up")])
    assert lake.states([2]) == first[:1] and contents(stays) == ["P.\n.G"]
    (observation,) = lake.step([1], [call("move", direction="right")])
    assert lake.states([1]) != first[:1] and lake.turn_rewards([1]) == [None]
    assert contents(observation) == [".P\n.G"]
    (won,) = lake.step([1], [call("move", direction="down")])
    (stopped,) = lake.step([2], ["I stay."])
    assert won.done and stopped.done and won.finish_reason == stopped.finish_reason == "stop"
    assert lake.scores and lake.rewards([1, 2]) == [1.0, 0.0]
    lake.close()


def test_its_schema_is_what_transformers_makes_of_its_method() -> None:
    cls = found(str(FrozenLake.factory))
    assert tool_names(cls) == ["move"]
    assert [schema(bound(cls, "move"), "lake")] == list(FrozenLake.functions)
