"""The reward `exact` and what rewards read from their arguments."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from rlkit.errors import UserError
from rlkit.rewards.exact import Exact, ExactConfig, last_number, text_after
from rlkit.rewards.inputs import completion_text


def marks(config: ExactConfig, texts: list, answers: list) -> list:
    return Exact(config)([""] * len(texts), texts, answer=answers, completion_ids=[[]] * len(texts))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 1,234 apples", "1234"),
        ("1234.0", "1234"),
        ("1,234,567.50 in all", "1234567.5"),
        ("first 3, then 4.", "4"),
        ("x=-7", "-7"),
        ("is \u22127", "-7"),
        ("10-3", "3"),
        ("f(x)-3", "3"),
        ("minus .5", "0.5"),
        ("-.5", "-0.5"),
        ("1,2345", "2345"),
        ("1,234,5", "5"),
        ("007", "7"),
    ],
)
def test_the_last_number_is_read_exactly(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "a.b", "-", "1e".replace("1", "x")])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert last_number(text) is None


def test_numbers_are_compared_without_rounding() -> None:
    config = ExactConfig(extract="last_number")
    assert marks(config, ["0.1000000000000000000001", "0.10"], ["0.1", "0.1"]) == [0.0, 1.0]


def test_a_hostile_text_of_digits_is_read_in_linear_time() -> None:
    start = time.perf_counter()
    last_number("1" + ",111" * 50_000 + "1")
    last_number("9" * 100_000)
    last_number("-." * 100_000)
    assert time.perf_counter() - start < 2


def test_the_whole_text_is_compared_after_strip() -> None:
    assert marks(ExactConfig(), [" 27\n", "27.0", "it is 27"], ["27", "27", 27]) == [1.0, 0.0, 0.0]


def test_an_answer_that_is_a_number_is_compared_as_text() -> None:
    assert marks(ExactConfig(), ["27"], [27]) == [1.0]


def test_the_last_number_of_the_text_is_the_answer() -> None:
    config = ExactConfig(extract="last_number")
    texts = ["2 + 2 = 1,234.0 eggs", "1234 or 5", "no idea"]
    assert marks(config, texts, ["1234", "1,234", "1234"]) == [1.0, 0.0, 0.0]


def test_the_text_after_the_marker_counts_only_when_the_marker_stands_once() -> None:
    config = ExactConfig(extract="after", marker="#")
    texts = ["11,25# 27 ", "27", "25#27#27", "#28", "27#"]
    assert marks(config, texts, ["27"] * 5) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert text_after("ab", "#") is text_after("a#b#c", "#") is None
    assert text_after("a####7", "####") == "7"


def test_an_answer_without_a_number_is_the_users_mistake_under_last_number() -> None:
    with pytest.raises(UserError, match=r"'east' holds no number; use reward.exact.extract=all"):
        marks(ExactConfig(extract="last_number"), ["5"], ["east"])


def test_a_row_without_an_answer_gets_no_mark() -> None:
    assert marks(ExactConfig(), ["a", "", " "], [None, "", " "]) == [None, None, None]


def test_a_missing_answer_column_names_the_columns_there_are() -> None:
    with pytest.raises(UserError, match=r"'answer'.* mean 'answers'.*answers, level") as error:
        Exact()(["p"], ["c"], answers=["1"], level=[1], completion_ids=[[1]])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="Columns: none"):
        Exact()(["p"], ["c"], completion_ids=[[1]])


def test_a_chat_completion_is_its_last_message() -> None:
    chat = [{"role": "assistant", "content": "7"}, {"role": "assistant", "content": "8"}]
    assert completion_text(chat) == "8"
    assert marks(ExactConfig(), [chat], ["8"]) == [1.0]
