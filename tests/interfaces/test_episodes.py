from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import EpisodeContext, Said, ToolCall, with_text


def test_a_turn_is_an_assistants_message_as_in_trl() -> None:
    call = ToolCall(name="f", arguments={"x": 1})
    identified = ToolCall(name="g", arguments={}, id="a1")
    said = Said(content="so", calls=[call, identified], reasoning="hm")
    assert said.message == {
        "role": "assistant",
        "content": "so",
        "reasoning_content": "hm",
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
            {"type": "function", "function": {"name": "g", "arguments": {}}, "id": "a1"},
        ],
    }
    assert Said(content="").message == {"role": "assistant", "content": ""}


def test_a_text_is_added_to_the_last_message_and_the_row_is_left_alone() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert with_text(messages, " and") == [messages[0], {"role": "user", "content": "u and"}]
    assert messages[1]["content"] == "u"
    assert with_text(messages, None) is messages
    assert with_text("3+4", "=") == "3+4="


def test_an_environment_that_no_run_opened_reads_nothing() -> None:
    with pytest.raises(UserError, match="when a run opens the environment"):
        EpisodeContext().parse("a", [])
