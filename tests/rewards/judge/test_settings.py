"""Settings of the judge that are refused, in the user's words."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.rewards.judge.settings import JudgeConfig


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"address": "127.0.0.1:8000"}, "address=127.0.0.1:8000 is not one like http"),
        ({"address": "http://"}, "is not one like"),
        ({"address": "http://a:x/v1"}, "is not one like"),
        ({"address": "ftp://a/v1"}, "is not one like"),
        ({"template": "{prompt}"}, r"must hold \{completion\}"),
        ({"template": '{completion} {"score": 1}'}, "template: .*write {name} for a column"),
        ({"pattern": "score: \\d"}, "needs a group"),
        ({"pattern": "("}, "is no regular expression"),
        ({"field": ""}, "field"),
        ({"values": {}}, "values must hold words"),
        ({"values": {"yes": 1, "YES": 2}}, "values must hold words"),
        ({"values": {"yes": 11}}, "yes stands for 11, which is not from lowest=0 to highest=10"),
        ({"lowest": 10}, "lowest=10 must be below highest=10"),
        ({"extra": {"messages": []}}, "extra cannot set messages"),
        ({"extra": {"temperature": 1}}, "extra cannot set temperature"),
        ({"concurrency": 0}, "concurrency"),
        ({"tries": 0}, "tries"),
        ({"timeout": 0}, "timeout"),
        ({"unparsed": "zero"}, "unparsed"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build("reward", "judge", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "http://me:sk-secret@judge/v1"},
        {"address": "https://judge/v1?key=sk-secret"},
        {"address": "https://sk-secret@judge/v1"},
        {"key_variable": "sk-secret"},
        {"key_variable": "secret"},
    ],
)
def test_a_key_in_the_configuration_is_refused_and_not_repeated(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="environment variable") as told:
        build("reward", "judge", **fields)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("written", ["http://a/v1", "http://a/v1/", "http://a/v1/chat/completions"])
def test_an_address_is_the_part_that_every_request_shares(written: str) -> None:
    assert JudgeConfig(address=written).address == "http://a/v1"
