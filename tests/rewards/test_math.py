"""The reward `math`: what it accepts and refuses, through real worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from rlkit.errors import UserError
from rlkit.rewards.math import equal as math_equal
from rlkit.rewards.math import worker as math_worker
from rlkit.rewards.math.equal import equal, matches
from rlkit.rewards.math.extract import last_boxed, spoken
from rlkit.rewards.math.reward import Math, MathConfig
from rlkit.rewards.math.worker import judge
from rlkit.rewards.pool import Verdict
from tests.rewards.math_cases import COMPLETIONS, DIFFERENT, EQUAL, PROMPT

# answer, an equal form, a wrong answer
GRADE_SCHOOL = [
    ("18", "18.0", "81"),
    ("3", "3", "-3"),
    ("70000", "70,000", "7000"),
    ("540", r"540", "54"),
    ("20", r"\$20", "200"),
    ("64", "8^2", "46"),
    ("260", "260.00", "26"),
    ("160", "160", "106"),
    ("45", "45", "54"),
    ("460", "460", "406"),
    ("366", r"3 \cdot 122", "365"),
    ("694", "694", "649"),
    ("0.5", r"\frac{1}{2}", "5"),
    ("1234567", "1,234,567", "1234568"),
    ("-12", "-12", "12"),
    ("2.75", r"2\frac{3}{4}", "2.7"),
    ("100", "10^2", "1000"),
    ("0", "0", "1"),
    ("7", r"\text{7}", "8"),
    ("15", r"15\text{ apples}", "16"),
]
COMPETITION = [
    (r"\frac{3}{7}", r"\frac{6}{14}", r"\frac{7}{3}"),
    (r"\dfrac12", "0.5", r"\frac{1}{3}"),
    (r"\sqrt{12}", r"2\sqrt{3}", r"3\sqrt{2}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", r"(\frac{\pi}{2}, 3)"),
    ("p - q", "-q + p", "q - p"),
    ("(x+1)(x-1)", "x^2-1", "x^2+1"),
    (r"2\pi", r"\pi \cdot 2", r"\pi^2"),
    ("[0,1)", "[0, 1)", "[0,1]"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 3)"),
    (r"\{1, 2, 3\}", r"\{3,2,1\}", r"\{1,2,4\}"),
    (r"x \le 4", r"x\leq4", r"x \ge 4"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", "(1, 3)"),
    ("3+4i", "4i+3", "3-4i"),
    (r"\frac{1+\sqrt{5}}{2}", r"\frac{\sqrt5+1}{2}", r"\frac{1-\sqrt{5}}{2}"),
    (r"y = 2x + 1", "y=1+2x", "y=2x-1"),
    (r"e^{2}", "e^2", "2^e"),
    (r"\log_2 8", "3", "4"),
    (r"\tan x", r"\frac{\sin x}{\cos x}", r"\cot x"),
    (r"\text{Evelyn}", r"\text{Evelyn}", r"\text{Briana}"),
    ("5!", "120", "24"),
]
ITEMS = GRADE_SCHOOL + COMPETITION


@pytest.fixture(scope="module")
def reward() -> Iterator[Math]:
    made = Math(MathConfig(timeout=20.0))
    yield made
    made.close()


def marks(reward: Math, pairs: Sequence[tuple[object, object]]) -> list[float | None]:
    answers, texts = [answer for answer, _ in pairs], [text for _, text in pairs]
    return reward([""] * len(pairs), texts, answer=answers, completion_ids=[[]] * len(pairs))


def test_forty_answers_match_themselves_and_their_equals_and_nothing_else(reward: Math) -> None:
    assert len(ITEMS) == 40
    for form, wanted in ((0, 1.0), (1, 1.0), (2, 0.0)):
        pairs = [(item[0], rf"So the answer is $\boxed{{{item[form]}}}$.") for item in ITEMS]
        wrong = [p for p, mark in zip(pairs, marks(reward, pairs), strict=True) if mark != wanted]
        assert wrong == []
    assert reward.counts() == {}


def test_an_answer_without_a_box_is_found_in_the_text(reward: Math) -> None:
    pairs = [("18", text) for text in ("9 * 2 = 18\n#### 18", "The answer is 18.", "#### 19", "")]
    assert marks(reward, pairs) == [1.0, 1.0, 0.0, 0.0]


def test_the_last_box_is_the_answer_and_is_not_passed_over_when_it_cannot_be_read(
    reward: Math,
) -> None:
    texts = [
        r"It is \boxed{1}. That was wrong. It is \boxed{18}.",
        r"It is \boxed{18}. That was wrong. It is \boxed{1}.",
        r"It is 18. \boxed{@\frac}",
    ]
    assert marks(reward, [("18", text) for text in texts]) == [1.0, 0.0, 0.0]


def test_a_box_comes_before_any_other_answer(reward: Math) -> None:
    text = r"So it is \boxed{4}. In other words: the final answer is $18$."
    assert marks(reward, [("18", text), ("4", text)]) == [0.0, 1.0]


def test_neighbouring_boxes_are_one_set(reward: Math) -> None:
    text = r"\boxed{1} or \boxed{18}"
    assert marks(reward, [("1, 18", text), (r"\{18, 1\}", text), ("18", text)]) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("gold", [r"\frac{1}{2}", r"$\frac{1}{2}$", r"so \boxed{\frac{1}{2}}"])
def test_a_gold_is_read_bare_in_dollars_or_in_a_box(reward: Math, gold: str) -> None:
    assert marks(reward, [(gold, r"\boxed{0.5}"), (gold, r"\boxed{2}")]) == [1.0, 0.0]


def test_a_row_without_an_answer_gets_no_mark_and_numbers_are_answers_too(reward: Math) -> None:
    assert marks(reward, [(None, "1"), (" ", "1"), (18, r"\boxed{18}")]) == [None, None, 1.0]
    assert reward.counts() == {}


def test_a_gold_that_is_no_mathematics_is_compared_as_a_string(reward: Math) -> None:
    gold = r"\frac{ @ # }"
    texts = [rf"\boxed{{{gold}}}", r"\boxed{\frac{  @  #  }}", gold, r"\boxed{7}", "7", r"\boxed{}"]
    assert marks(reward, [(gold, text) for text in texts]) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_chat_completion_is_judged_by_its_content(reward: Math) -> None:
    assert marks(reward, [("4", [{"role": "assistant", "content": r"\boxed{4}"}])]) == [1.0]


def test_only_the_end_of_a_long_completion_is_judged(reward: Math) -> None:
    near = Math(MathConfig(max_chars=30))
    near.__dict__["_pool"] = reward._pool
    texts = [r"\boxed{4}" + " and on" * 10, "so" * 10**6 + r" \boxed{4}"]
    assert marks(near, [("4", text) for text in texts]) == [0.0, 1.0]


def test_text_with_line_breaks_and_lone_surrogates_arrives(reward: Math) -> None:
    assert marks(reward, [("4", "a\n\u2028\ud800\x00\r\n" + r"\boxed{4}")]) == [1.0]


def test_a_missing_answer_column_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="reward 'math' needs a column called 'answer'"):
        Math()(["p"], ["c"], completion_ids=[[1]])


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_equal_both_ways(gold: str, answer: str) -> None:
    assert equal(gold, answer, 0.0)
    assert equal(answer, gold, 0.0)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_answers_that_only_look_equal_are_not(gold: str, answer: str) -> None:
    assert not equal(gold, answer, 0.0)


def test_there_are_many_cases_of_both_kinds_and_workers_judge_them_alike(reward: Math) -> None:
    assert len(EQUAL) >= 60 and len(DIFFERENT) >= 60
    for cases, mark in ((EQUAL, 1.0), (DIFFERENT, 0.0)):
        found = marks(reward, [(gold, rf"It is \boxed{{{answer}}}.") for gold, answer in cases])
        assert [case for case, m in zip(cases, found, strict=True) if m != mark] == []
    assert reward.counts() == {}


def test_a_text_too_long_to_be_read_equals_only_itself() -> None:
    long = " + ".join(["x"] * 1500)
    assert equal(long, f"${long}$", 0.0)
    assert not equal(long, "1500x", 0.0)


@pytest.mark.parametrize(("text", "mark"), COMPLETIONS)
def test_only_what_the_completion_states_last_as_its_answer_counts(text: str, mark: float) -> None:
    assert float(matches("42", spoken(text, PROMPT), 0.0)) == mark


def test_the_prompt_reaches_the_reward_as_text_or_as_a_chat(reward: Math) -> None:
    prompts = [PROMPT, [{"role": "user", "content": PROMPT}], "", []]
    texts = [PROMPT + r" \boxed{41}", PROMPT, PROMPT, PROMPT]
    answers = ["41", "42", "42", "42"]
    assert reward(prompts, texts, answer=answers, completion_ids=[[]] * 4) == [1.0, 0.0, 1.0, 1.0]


def test_thinking_that_the_prompt_opened_and_nobody_closed_holds_no_answer(reward: Math) -> None:
    prompts = ["p <think>\n"] * 2
    texts = [r"so \boxed{42}", r"hm</think> \boxed{42}"]
    assert reward(prompts, texts, answer=["42"] * 2, completion_ids=[[]] * 2) == [0.0, 1.0]


def test_thinking_is_cut_before_a_long_text_is(reward: Math) -> None:
    text = "<think>" + "so " * 10**5 + r"\boxed{42}"
    assert marks(reward, [("42", text)]) == [0.0]


def test_a_relative_tolerance_admits_rounded_real_numbers_and_no_more() -> None:
    assert equal(r"\frac{1}{3}", "0.3333333", 1e-6)
    assert equal(r"40\pi", "125.6637", 1e-6)
    assert equal("(0.5, 1)", "(0.5000001, 1)", 1e-6)
    assert not equal(r"\frac{1}{3}", "0.333", 1e-6)
    assert not equal("0", "0.0000001", 1e-6)
    assert not equal("x", "1.0000001x", 1e-6)
    assert not equal("204_5", "205_5", 0.1)


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


def breaks(*arguments: object) -> bool:
    """A comparison that meets a defect of the algebra system."""
    raise TypeError("no order")


def test_an_exception_over_the_models_text_is_a_zero_that_is_counted_as_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math_worker, "matches", breaks)
    verdict = judge("4", r"\boxed{5}", 0.0)
    assert verdict == {"limit": "raised TypeError: no order", "retire": False}
    reward = Math()
    judged = Verdict("limit", None, verdict["limit"])
    reward._count([judged, Verdict("limit", None, "time"), Verdict("limit", None, "MemoryError")])
    assert reward.counts() == {"errors": 1, "timeouts": 2}


def test_an_exception_over_the_gold_is_an_error_and_never_a_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math_equal, "gold_text", breaks)
    assert judge("4", r"\boxed{4}", 0.0) == {"error": "TypeError: no order", "retire": False}


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_want_of_memory_or_stack_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def exhausted(*arguments: object) -> bool:
        raise error

    monkeypatch.setattr(math_worker, "matches", exhausted)
    assert judge("4", r"\boxed{5}", 0.0) == {"limit": error.__name__, "retire": False}
