"""Environments from sections of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.environments.mixed import Mixed
from rlkit.errors import UserError
from rlkit.rollout.turns_built import built, names_in

USERS = Path(__file__).parents[1] / "environments" / "users" / "increment.py"
LAKE = {"name": "frozen_lake", "size": 5}
BOTH = {"name": "several", "of": {"frozen_lake": {"size": 5}, "calculator": None}}


def test_the_names_of_a_section() -> None:
    assert names_in(None) == names_in("x") == names_in({"size": 3}) == []
    assert names_in(LAKE) == ["frozen_lake"]
    assert names_in(BOTH) == ["frozen_lake", "calculator"]
    assert names_in({"name": "several"}) == []


@pytest.mark.usefixtures("own_registry")
def test_one_none_several_and_tools_alone() -> None:
    assert built(None, ()) is None
    lake = built(LAKE, [])
    assert lake is not None and lake.config.size == 5
    tools = built(None, [f"{USERS}:multiply"])
    assert tools is not None
    assert [each["function"]["name"] for each in tools.schemas({})] == ["multiply"]
    both = built({**BOTH, "of": {"frozen_lake": {"size": 5}}}, [])
    assert isinstance(both, Mixed) and both.environments["frozen_lake"].config.size == 5
    for each in (lake, tools, both):
        each.close()


@pytest.mark.usefixtures("own_registry")
def test_what_cannot_be_is_told_in_a_line() -> None:
    with pytest.raises(UserError, match="size"):
        built({**LAKE, "size": 0}, [])
    with pytest.raises(UserError, match=r"environment=\[\.\.\.\] names several"):
        built(BOTH, [f"{USERS}:multiply"])
    with pytest.raises(UserError, match="environment.of.frozen_lake.size"):
        built({**BOTH, "of": {"frozen_lake": {"size": 0}}}, [])
