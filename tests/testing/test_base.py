"""The helpers of the contract kit, and what it asks of every part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import field_serializer

from rlkit.interfaces import Part, PartConfig
from rlkit.testing.base import (
    close,
    every_setting_is_documented,
    require,
    settings_survive_the_config_file,
    stored,
)


class Documented(PartConfig):
    a: float = 1.0
    """A number."""


class Bare(PartConfig):
    knob: float = 1.0


class Lossy(PartConfig):
    a: float = 1.0
    """A number that is written with too few digits."""

    @field_serializer("a")
    def _rounded(self, value: float) -> float:
        return round(value, 1)


class Own(Part[Any]):
    """Any config."""


def test_a_sentence_is_said_where_something_does_not_hold() -> None:
    require(True, "never said")
    nothings: tuple[object, ...] = (False, 0, [], None)
    for nothing in nothings:
        with pytest.raises(AssertionError, match="^always said$"):
            require(nothing, "always said")


def test_tensors_are_close_by_the_scale_of_the_largest() -> None:
    one = torch.tensor([1e6, 0.0], dtype=torch.float64)
    assert close([one], [one + 1e-4])
    assert not close([one], [one + 1.0])
    assert not close([one / 1e6], [one / 1e6 + 1e-6])
    assert close([torch.zeros(0)], [torch.zeros(0)])


def test_a_stored_state_is_another_one_with_the_same_contents() -> None:
    state: dict[str, Any] = {"x": torch.tensor([1.0]), "n": [1, [2, None]], "inner": {"y": True}}
    found = stored(state)
    assert torch.equal(found["x"], state["x"]) and found["x"] is not state["x"]
    assert found["inner"] == {"y": True} and found["n"] == [1, [2, None]]


def test_settings_must_survive_json() -> None:
    settings_survive_the_config_file(Own(Documented(a=0.25)))
    with pytest.raises(AssertionError, match="the settings change in a config file"):
        settings_survive_the_config_file(Own(Lossy(a=0.25)))


def test_settings_must_be_documented() -> None:
    every_setting_is_documented(Own(Documented()))
    with pytest.raises(AssertionError, match="'knob' has no docstring"):
        every_setting_is_documented(Own(Bare()))
