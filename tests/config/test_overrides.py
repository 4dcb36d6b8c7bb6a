"""What an override sets, and values in quotes."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rlkit.config.overrides import key_of, quoted
from rlkit.errors import UserError


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.steps=3", "train.steps"),
        ("+train.steps=3", "train.steps"),
        ("++train.steps=3", "train.steps"),
        ("~correction", "correction"),
        (" buffer=fifo", "buffer"),
        ("task@eval.task=jsonl", "task"),
        ("model.name=a=b", "model.name"),
        ("a@b=1", "a"),
        ("~a", "a"),
    ],
)
def test_the_key_of_an_override(override: str, key: str) -> None:
    assert key_of(override) == key


@pytest.mark.parametrize("override", ["", "=3", ":", "+=3", "~"])
def test_what_sets_nothing_is_no_override(override: str) -> None:
    with pytest.raises(UserError, match="is not an override"):
        key_of(override)


@pytest.mark.parametrize("text", ["a", "it's", "x=1,[y]{z}", "", "a\\b", "a\\\\'b", "c\\"])
def test_a_quoted_value_is_read_unchanged(text: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert parsed.value() == text
