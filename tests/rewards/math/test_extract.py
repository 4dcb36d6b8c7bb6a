"""Where a completion gives its answer."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.equal import matches
from rlkit.rewards.math.extract import last_boxed, spoken
from tests.rewards.math.cases import COMPLETIONS, PROMPT


@pytest.mark.parametrize(("text", "mark"), COMPLETIONS)
def test_only_what_the_completion_states_last_as_its_answer_counts(text: str, mark: float) -> None:
    assert float(matches("42", spoken(text, PROMPT), 0.0)) == mark


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        (r"\boxed{a}\boxed{b{c}d}", "a, b{c}d"),
        (r"\boxed{a}, $\boxed{b}$ and \boxed{c}", "a, b, c"),
        (r"\boxed{a} \boxed{a}", "a"),
        (r"\boxed{a}. \boxed{b}", "b"),
        (r"\boxed{a} \boxed{b", "a"),
        (r"{ \boxed{a}", "a"),
        (r"} \boxed{a}", "a"),
        (r"\boxed{\boxed{a} b}", r"\boxed{a} b"),
        (r"\boxed{\{a\}}", r"\{a\}"),
        (r"\boxed{5}\%", r"5\%"),
        (r"\boxed{5} percent", r"5\%"),
        (r"\boxed{}", ""),
        (r"\fbox{5}", "5"),
    ],
)
def test_the_last_closed_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content
