"""Texts encoded again: the ids of another tokenizer, and what is lost."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.stored.reencode import Reencoder, encoded
from tests.stored.groups import ENCODER

ROW = {
    "prompt": "1+1=",
    "messages": None,
    "response": "ab",
    "prompt_ids": [7],
    "response_ids": [1, 2, 3, 4],
    "behavior_logp": [-1.0] * 4,
    "loss_mask": [True] * 4,
    "token_extras": [{"name": "kept", "value": [0.0] * 4}],
    "reward": 0.5,
    "finish_reason": "stop",
}


def row(**changes: Any) -> dict[str, Any]:
    return {**ROW, **changes}


def test_a_response_has_its_end_only_if_it_ended() -> None:
    assert encoded("ab", "stop", ENCODER) == ([97, 98, 0], False)
    assert encoded("ab", "length", ENCODER) == ([97, 98], False)
    assert encoded("aB", "stop", ENCODER) == ([97, 98, 0], True)


def test_a_row_gets_new_ids_and_loses_what_was_per_token() -> None:
    coder = Reencoder(ENCODER)
    found = coder.row(row(), "a.parquet")
    assert (found["prompt_ids"], found["response_ids"]) == ([49, 43, 49, 61], [97, 98, 0])
    assert found["reward"] == 0.5
    assert all(found[n] is None for n in ("behavior_logp", "loss_mask", "token_extras"))
    chat = [{"role": "user", "content": "1"}]
    assert coder.row(row(prompt=None, messages=chat, response="aB"), "")["prompt_ids"] == [49]
    c = coder.counts
    assert (c.responses, c.changed, c.before, c.after) == (2, 1, 8, 6)


def test_a_masked_end_is_no_hindrance() -> None:
    """An import masks an end whose log-prob no file gives."""
    mask = [True, True, True, False]
    assert Reencoder(ENCODER).row(row(loss_mask=mask), "")["loss_mask"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"response": None}, "a.parquet has no text"),
        ({"prompt": ""}, "a.parquet has no text"),
        ({"loss_mask": [True, False, True, True]}, "not the policy's own"),
    ],
)
def test_what_cannot_be_encoded_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Reencoder(ENCODER).row(row(**changes), "a.parquet")
