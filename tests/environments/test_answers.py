from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rlkit.environments.answers import Answers, answered, message, read_answers
from rlkit.environments.host import LONGEST
from rlkit.interfaces import Said, ToolCall

FINE = {"text": "5", "failed": False, "late": False}
LATE = {"text": "late", "failed": True, "late": True}


def run(*texts: Mapping[str, Any], **kwargs: Any) -> Any:
    asked: list[Sequence[Mapping[str, Any]]] = []

    def call(calls: Sequence[Mapping[str, Any]]) -> Answers:
        asked.append(calls)
        return Answers(texts=texts, **kwargs)

    return call, asked


def said(*names: str, errors: Sequence[str] = (), number: str | None = None) -> Said:
    calls = [ToolCall(name=name, arguments={"x": 1}, id=number) for name in names]
    return Said(content="so", calls=calls, errors=errors)


def test_a_turn_without_a_call_ends_the_episode_and_runs_nothing() -> None:
    call, asked = run()
    full = answered(Said(content="yes"), 3, call)
    assert (full.done, full.finish_reason, full.counts["void_turns"], asked) == (
        True,
        "stop",
        0,
        [],
    )
    assert answered(Said(content=" \n"), 3, call).counts["void_turns"] == 1


def test_calls_are_answered_in_order_with_their_ids() -> None:
    call, asked = run(FINE, LATE)
    out = answered(said("f", "g", number="abc"), None, call)
    assert asked == [[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"x": 1}}]]
    assert out.messages == [
        {"role": "tool", "name": "f", "content": "5", "tool_call_id": "abc"},
        {"role": "tool", "name": "g", "content": "late", "tool_call_id": "abc"},
    ]
    assert (out.counts["calls"], out.counts["failed_calls"], out.counts["timeouts"]) == (2, 1, 1)
    assert not out.done


def test_calls_beyond_the_limit_are_not_run_and_are_told_so() -> None:
    call, asked = run(FINE)
    out = answered(said("f", "g", "h"), 1, call)
    assert [len(calls) for calls in asked] == [1]
    assert [m["content"] for m in out.messages] == [
        "5",
        *["{'error': 'not run: at most 1 calls a turn'}"] * 2,
    ]
    assert (out.counts["calls"], out.counts["failed_calls"]) == (3, 2)


def test_a_turn_that_cannot_be_read_goes_on_with_the_reason() -> None:
    call, asked = run()
    out = answered(said(errors=["no JSON"]), 1, call)
    assert not asked and not out.done and out.counts["unparsable"] == 1
    assert out.messages == [
        {
            "role": "tool",
            "name": "invalid_call",
            "content": "{'error': 'no JSON'}",
            "tool_call_id": "call00000",
        }
    ]


def test_an_environment_ends_the_episode_when_it_is_done_or_lost() -> None:
    done = answered(said("f"), None, run(FINE, done=True)[0])
    assert (done.done, done.finish_reason, done.messages) == (True, "stop", ())
    lost = answered(said("f"), None, run(LATE, lost=True, died=True)[0])
    assert (lost.done, lost.finish_reason, lost.counts["lost"]) == (True, "tool_error", 1)


def test_a_message_can_be_written_to_a_file_and_read_by_a_tokenizer() -> None:
    assert message("\ud800f", "5\udfff", "\ud800") == {
        "role": "tool",
        "name": "?f",
        "content": "5?",
        "tool_call_id": "?",
    }


def test_answers_of_another_process_are_read() -> None:
    read = read_answers({"answers": [FINE, {**LATE, "text": "\ud800"}], "done": True}, 2)
    assert read == Answers(texts=[FINE, {**LATE, "text": "?"}], done=True)
    long = read_answers({"answers": [{**FINE, "text": "a" * 999_999}], "done": False}, 1)
    assert long is not None and len(long.texts[0]["text"]) == LONGEST


@pytest.mark.parametrize(
    "value",
    [
        None,
        [FINE],
        {"answers": [FINE]},
        {"answers": [FINE], "done": "no"},
        {"answers": {"0": FINE}, "done": False},
        {"answers": [], "done": False},
        {"answers": [FINE, FINE], "done": False},
        {"answers": [["text"]], "done": False},
        {"answers": [{"text": "5", "failed": False}], "done": False},
        {"answers": [{**FINE, "text": None}], "done": False},
        {"answers": [{**FINE, "late": 0}], "done": False},
        {"answers": [{**FINE, "more": 0}], "done": False},
    ],
)
def test_anything_else_that_another_process_writes_is_no_answer(value: Any) -> None:
    assert read_answers(value, 1) is None
