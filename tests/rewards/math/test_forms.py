"""Lists, named answers and relations."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.forms import is_label, name_of, read
from rlkit.rewards.math.tokens import Unread, tokenize


@pytest.mark.parametrize(
    ("text", "label", "kind", "items"),
    [
        ("5", "", "value", 0),
        ("{5}", "", "value", 0),
        ("x = 5", "x", "value", 0),
        ("a_{n} = 5", "a _ n", "value", 0),
        ("1, 2", "", "list", 2),
        ("1 and 2 or 3", "", "list", 3),
        ("1, 2,", "", "list", 2),
        ("x = 1, y = 2", "", "named", 2),
        ("n = 1, 2", "n", "list", 2),
        ("x < 3", "x", "()", 2),
        ("1 <= x < 3", "x", "[)", 2),
        (r"x < 1 \text{ or } x > 2", "x", "union", 2),
        (r"x \ne 8", "", "unequal", 2),
        (r"x \ne y", "", "unequal", 0),
        ("x^2 + y^2 = 4", "", "equation", 0),
        ("x + y < 2", "", "below", 0),
        (r"x + y \le 2", "", "at most", 0),
    ],
)
def test_forms(text: str, label: str, kind: str, items: int) -> None:
    form = read(text)
    assert (form.kind, len(form.items)) == (kind, items)
    assert form.label.replace("{ ", "").replace(" }", "") == label


def test_a_true_chain_is_its_last_side_and_what_is_approximate_is_dropped() -> None:
    assert read("1 + 2 = 3").value == 3
    assert read(r"\frac{1}{3} \approx 0.33").value == read("1/3").value


def test_a_point_listed_twice_is_listed_once_and_a_number_stays() -> None:
    assert len(read("2, 2").items) == 2
    assert read("(1,2), (1,2), (3,4)").items == read("(1,2), (3,4)").items


@pytest.mark.parametrize("text", ["x", "a_n", "f(x)", "(x, y)", "|AB|", r"\angle ABC", "V_1:V_2"])
def test_labels(text: str) -> None:
    assert is_label(tokenize(text))


@pytest.mark.parametrize("text", ["e", "i", "2x", "x + y", r"\text{half}", "5"])
def test_no_labels(text: str) -> None:
    assert not is_label(tokenize(text))


def test_a_label_has_one_spelling() -> None:
    assert name_of(tokenize("a_{n}")) == name_of(tokenize("a_n"))


@pytest.mark.parametrize("text", ["", "@", "x <"])
def test_what_is_no_answer_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        read(text)
