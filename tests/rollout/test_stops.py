"""Stop texts: which are tokens, which are texts, and which can never appear."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlkit.config.validation import validation_message
from rlkit.errors import UserError
from rlkit.rollout.base import RolloutConfig
from rlkit.rollout.stops import Stops, check_stops, end_tokens, special_tokens
from tests.tiny import make_policy, make_tokenizer


def test_texts_are_split_by_the_special_tokens_in_them() -> None:
    special = {"<eos>": 1, "<|end|>": 7}
    found = Stops.of(("a", "<|end|>", "<|end|>\n", "b<eos>", "<eos>", "end"), special)
    assert found.tokens == (7, 1)
    assert found.plain == ("a", "end") and found.mixed == ("<|end|>\n", "b<eos>")


def test_special_tokens_are_the_named_ones_and_the_added_ones() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["plain"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    number = tokenizer.convert_tokens_to_ids("<|end|>")
    assert special_tokens(tokenizer) == {"<pad>": 0, "<eos>": 1, "<|end|>": number}


def test_the_ends_are_those_of_the_tokenizer_and_of_the_generation_config() -> None:
    policy = make_policy()
    assert end_tokens(policy) == [1]
    for configured, expected in (([7, 5], [1, 5, 7]), (3, [1, 3]), (None, [1])):
        policy.model.generation_config.eos_token_id = configured
        assert end_tokens(policy) == expected


def test_white_space_that_the_tokenizer_never_writes_is_refused() -> None:
    """The tiny tokenizer has no white space; what it writes, and what is no white space, passes."""
    tokenizer = make_tokenizer()
    check_stops(tokenizer, ("#", "3,", "nothing of the kind"))
    for text in ("\n\n", " "):
        with pytest.raises(UserError, match="rollout.stop=.* can never appear") as caught:
            check_stops(tokenizer, ("#", text))
        assert "\n" not in str(caught.value)
    tokenizer.add_tokens(["\n\n"])
    check_stops(tokenizer, ("\n\n",))


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        RolloutConfig(stop=("#", ""))
    line = validation_message(caught.value, RolloutConfig, "rollout.")
    assert line == "rollout.stop.1='' is not valid: it must be text of 1 or more characters"
