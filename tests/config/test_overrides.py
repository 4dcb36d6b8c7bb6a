"""What an override sets."""

from __future__ import annotations

import pytest

from rlkit.config.overrides import key_of
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
