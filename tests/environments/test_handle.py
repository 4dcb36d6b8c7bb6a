"""Values that cross between a run and the processes of its episodes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlkit.environments.handle import Handle, as_json, as_number, as_state
from rlkit.errors import UserError


class Answering:
    """Answers questions about one object in this process."""

    def __init__(self) -> None:
        self.asked_for: list[tuple[Any, ...]] = []

    def asked(self, episode: int, do: str, what: str, **arguments: Any) -> Any:
        self.asked_for.append((episode, do, what, arguments["name"], arguments["arguments"]))
        if episode == 0:
            return None
        if episode == 1:
            return 5
        if arguments["name"] == "count":
            return {"value": 4}
        return {"method": True} if arguments["arguments"] is None else sum(arguments["arguments"])


def test_attributes_are_read_and_methods_called_elsewhere() -> None:
    there = Answering()
    handle = Handle(there, 3)
    assert handle.count == 4 and handle.add(1, 2) == 3
    assert there.asked_for[-1] == (3, "attribute", "`add`", "add", (1, 2))
    assert Handle(there, 0).count is None, "its episode was lost"
    assert Handle(there, 1).count is None, "a model's code wrote that"
    with pytest.raises(AttributeError):
        _ = handle._count


def test_equal_states_are_equal_texts() -> None:
    assert as_state(None) is None
    assert as_state({"b": 1, "a": [2]}) == as_state({"a": [2], "b": 1}) != as_state({"a": [2]})
    assert as_state("1") != as_state(1)


def test_a_number_is_finite_or_none() -> None:
    assert as_number(None, "x") is None and as_number(2, "x") == 2.0
    for wrong in ("2", math.inf, [1]):
        with pytest.raises(UserError, match="x is .*; give a finite number or None"):
            as_number(wrong, "x")


def test_columns_are_handed_over_as_plain_values() -> None:
    import datetime

    import numpy as np
    import torch

    row = {
        "a": np.int64(3),
        "b": torch.ones(2),
        "c": (1, {"d": None}),
        "e": datetime.date(2026, 1, 2),
    }
    assert as_json(row, "row") == {
        "a": 3,
        "b": [1.0, 1.0],
        "c": [1, {"d": None}],
        "e": "2026-01-02",
    }
    with pytest.raises(UserError, match=r"column 'x' cannot be handed to its process: object"):
        as_json(object(), "column 'x'")
