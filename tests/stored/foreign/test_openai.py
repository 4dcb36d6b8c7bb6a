"""OpenAI-style lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored.foreign import openai
from tests.stored.foreign import files


def test_openai(tmp_path: Path) -> None:
    first, second = openai.records(files.openai(tmp_path / "a.jsonl"), None)
    assert first.tokens == ["1", "2"] and first.behavior_logp == [-0.5, -0.125]
    assert first.group == second.group and first.finish_reason == "stop"
    assert second.tokens is None and second.finish_reason == "length"
    with pytest.raises(UserError, match="no 'reward'"):
        list(openai.records(files.openai(tmp_path / "b.jsonl", reward=None), None))


def test_a_batch_file_has_its_bodies(tmp_path: Path) -> None:
    row = {
        "request": {"body": {"messages": [{"role": "user", "content": "q"}]}},
        "response": {"body": {"choices": [{"message": {"content": "a"}}]}},
        "score": 0.5,
    }
    (found,) = openai.records(files.lines(tmp_path / "a.jsonl", [row]), "score")
    assert (found.response, found.reward) == ("a", 0.5)
