"""What a message says of a name that is not known."""

from __future__ import annotations

import pytest

from rlkit.errors import LONGEST_LIST, NEAREST, counted, kind_of, known_names, suggest, suggest_file


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("remx", " Did you mean 'remix'?"),
        ("remix", " Did you mean 'remix'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_word_is_suggested(word: str, said: str) -> None:
    assert suggest(word, ["remix", "grpo", "reinforce"]) == said


def test_a_short_list_is_printed_in_full() -> None:
    assert known_names("x", ["b", "a"], "`list`") == "Known: b, a"
    assert known_names("x", [], "`list`") == "Known: none"


def test_of_a_long_list_the_nearest_are_printed_and_the_others_counted() -> None:
    """40 names of 5 characters with ", " between are 278 characters."""
    names = [f"nam{i:02}" for i in range(40)]
    found = known_names("nam17", names, "`rlkit list loss`")
    assert found.startswith("Known: nam17, ")
    assert found.count("nam") == NEAREST
    assert found.endswith(" and 35 more, see `rlkit list loss`")


def test_a_list_is_long_above_its_limit_alone() -> None:
    fits = ["a" * (LONGEST_LIST - 3), "b"]
    assert known_names("b", fits, "x") == "Known: " + ", ".join(fits)
    assert known_names("b", [*fits, ""], "x").endswith("and 0 more, see x")


def test_a_value_is_told_by_its_kind() -> None:
    assert [kind_of(value) for value in (None, 5, "x")] == ["None", "an int", "a str"]


def test_one_has_no_s() -> None:
    assert [counted(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]


def test_letters_in_another_order_are_nearer_than_another_letter() -> None:
    assert suggest("gpro", ["gvpo", "gspo", "grpo", "gmpo"]) == " Did you mean 'grpo'?"


@pytest.mark.parametrize(
    ("name", "said"),
    [("train", "train.jsonl"), ("tain.jsonl", "train.jsonl"), ("sur.jsonl", None), ("nope", None)],
)
def test_files_are_alike_by_their_names_and_not_by_their_endings(
    name: str, said: str | None
) -> None:
    found = suggest_file(name, ["train.jsonl", "nosuch.jsonl", "o_types"])
    assert found == (f" Did you mean '{said}'?" if said else "")
