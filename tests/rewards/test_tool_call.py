"""What episodes earn by calling tools, and lose by calls that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.environments.answers import Answers, answered, refused
from rlkit.environments.formats import FORMATS
from rlkit.registry import build
from tests.environments.asking import call


def turn(calls: int) -> dict[str, Any]:
    made = [{"type": "function", "function": {"name": "f", "arguments": {}}}] * calls
    return {"role": "assistant", "content": "x"} | ({"tool_calls": made} if calls else {})


TOOL = {"role": "tool", "name": "f", "content": "1"}


def test_turns_with_a_call_count_once_each_up_to_the_most() -> None:
    chats = [
        [turn(0)],
        [turn(1), TOOL, turn(3), TOOL, TOOL, TOOL, turn(0)],
        [turn(1), TOOL] * 12,
        "a text",
    ]
    reward = build("reward", "tool_call")
    assert reward([None] * 4, chats) == [0.0, pytest.approx(0.2), 1.0, 0.0]
    assert build("reward", "tool_call", per_turn=0.5, most=0.75)([None] * 4, chats) == [
        *(0.0, 0.75, 0.75, 0.0)
    ]
    assert reward.config.weight == 1.0 and reward.marks_correctness is False


def test_a_call_that_cannot_be_read_costs_and_is_none() -> None:
    """Of two such calls and one that can be read, as an environment answers them."""
    text = call("f") + "<tool_call>{</tool_call><tool_call>[]</tool_call>"
    said = FORMATS["hermes"](text, [])
    seen = answered(said, None, lambda calls: Answers(texts=[refused("no")] * len(calls)))
    chat = [dict(seen.said), *map(dict, seen.messages)]
    assert len(said.errors) == 2
    found = build("reward", "call_format")([None] * 3, [chat, [turn(1), TOOL], "a"])
    assert found == [pytest.approx(-0.2), 0.0, 0.0]
    assert build("reward", "call_format", penalty=1.0)([None], [chat]) == [-2.0]
