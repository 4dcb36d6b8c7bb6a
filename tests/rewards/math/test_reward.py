"""The reward `math` through real worker processes: what it accepts, refuses and survives."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.rewards.math import worker as math_worker
from rlkit.rewards.math.reward import Math, MathConfig
from rlkit.rewards.math.worker import judge
from rlkit.rewards.pool import Verdict
from tests.rewards.math.cases import DIFFERENT, EQUAL, PROMPT
from tests.rewards.processes import is_alive, script, wait_until

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


def test_neighboring_boxes_are_one_set(reward: Math) -> None:
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


def test_there_are_many_cases_of_both_kinds_and_workers_judge_them_alike(reward: Math) -> None:
    assert len(EQUAL) >= 60 and len(DIFFERENT) >= 60
    for cases, mark in ((EQUAL, 1.0), (DIFFERENT, 0.0)):
        found = marks(reward, [(gold, rf"It is \boxed{{{answer}}}.") for gold, answer in cases])
        assert [case for case, m in zip(cases, found, strict=True) if m != mark] == []
    assert reward.counts() == {}


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


SUM = "(a+b+c+d+g)"


BOMB = rf"\boxed{{{SUM}^{{70}} - {SUM}^{{69}}(a+b+c+d) - g{SUM}^{{69}} + 7}}"
"""Equals 7, but the proof has a million terms."""


RIGHT = r"\boxed{7}"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Math]:
    made = Math(MathConfig(timeout=2.0, max_chars=200_000, workers=2))
    yield made
    made.close()


def sevens(reward: Math, texts: list[str]) -> list[float | None]:
    n = len(texts)
    return reward([""] * n, texts, answer=["7"] * n, completion_ids=[[]] * n)


def test_hostile_text_gets_zero_and_the_others_their_mark(guarded: Math) -> None:
    start = time.monotonic()
    tower = r"\boxed{9**9**9**9}"
    long_sum = r"\boxed{" + "1+" * 50_000 + "1}"
    braces = r"\boxed" + "{" * 5000 + "7" + "}" * 5000
    brackets = "the answer is " + "(" * 5000 + "7" + ")" * 5000
    radicals = r"\boxed{" + r"\sqrt{2+" * 300 + "2" + "}" * 300 + "}"
    factorial = r"\boxed{(10^9)! + \binom{10^9}{10^8}}"
    hostile = [tower, long_sum, braces, brackets, radicals, factorial, r"\(" * 50_000]
    texts = [text for bad in (*hostile, BOMB) for text in (bad, RIGHT)]
    found = sevens(guarded, texts)
    assert found[1::2] == [1.0] * (len(hostile) + 1)
    assert found[::2] == [0.0] * (len(hostile) + 1)
    assert guarded.counts() == {"timeouts": 1}
    assert time.monotonic() - start < 20


def test_code_in_a_completion_is_not_run(
    guarded: Math, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = tmp_path / "touched"
    call = f"__import__('os').system('touch {touched}')"
    wraps = ["%s", r"\boxed{%s}", "$%s$", "the answer is %s", r"\boxed{7+%s}", "1+%s", "(1).%s"]
    assert set(sevens(guarded, [wrap % call for wrap in wraps])) == {0.0}
    assert not touched.exists()


@pytest.mark.slow
def test_an_allocation_beyond_the_memory_limit_ends_the_item_and_the_next_one_is_judged() -> None:
    reward = Math(MathConfig(memory_mb=256, workers=1))
    texts = [BOMB, RIGHT]
    items = [{"gold": "7", "text": text, "tolerance": 0, "alarm": 99.0} for text in texts]
    try:
        memory, score = reward._pool.judge(items, 60.0)
        assert memory == Verdict("limit", None, "MemoryError")
        assert score.score == 1.0
    finally:
        reward.close()


def test_a_worker_killed_at_work_is_replaced_and_lost_after_the_second_time() -> None:
    reward = Math(MathConfig(timeout=60.0, workers=1))
    results: list[float | None] = []
    thread = threading.Thread(target=lambda: results.extend(sevens(reward, [RIGHT, BOMB, RIGHT])))
    thread.start()
    try:
        killed: list[int] = []
        end = time.monotonic() + 40
        while len(killed) < 2:
            assert time.monotonic() < end
            # The bomb is item 1, tried again after item 2.
            for worker in [w for w in reward._pool.workers if w.item == 1]:
                if worker.pid not in killed:
                    killed.append(worker.pid)
                    time.sleep(0.3)
                    os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.02)
        thread.join(20)
        assert results == [1.0, None, 1.0]
        assert reward.counts() == {"lost": 1}
    finally:
        reward.close()


@pytest.mark.slow
def test_a_script_without_a_main_guard_works_and_leaves_no_process(tmp_path: Path) -> None:
    running = script(
        tmp_path,
        r"""
        import json
        from rlkit.rewards.math.reward import Math
        reward = Math()
        marks = reward(["p", "p"], [r"\boxed{7}", r"\boxed{8}"], answer=["7", "7"])
        print(json.dumps([marks, [w.pid for w in reward._pool.workers]]))
        """,
    )
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    marks, pids = json.loads(out)
    assert marks == [1.0, 0.0]
    assert len(pids) >= 1
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_workers_end_when_the_parent_is_killed_even_in_the_middle_of_an_item(
    tmp_path: Path,
) -> None:
    running = script(
        tmp_path,
        r"""
        import threading, time
        from rlkit.rewards.math.reward import Math, MathConfig
        reward = Math(MathConfig(timeout=1.0, workers=2))
        reward(["p", "p"], [r"\boxed{7}"] * 2, answer=["7"] * 2)
        total = "(a+b+c+d+g)"
        bomb = f"{total}^{{70}} - {total}^{{69}}(a+b+c+d) - g{total}^{{69}} + 7"
        texts = [f"\\boxed{{{bomb}}}", "\\boxed{7}"]
        threading.Thread(target=lambda: reward(["p", "p"], texts, answer=["7"] * 2)).start()
        while not any(w.item == 0 for w in reward._pool.workers):
            time.sleep(0.01)
        print(*[w.pid for w in reward._pool.workers], flush=True)
        time.sleep(60)
        """,
    )
    assert running.stdout is not None
    pids = [int(pid) for pid in running.stdout.readline().split()]
    running.kill()
    running.communicate()
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), seconds=15)


def test_it_works_in_a_thread(guarded: Math) -> None:
    results: list[float | None] = []
    thread = threading.Thread(target=lambda: results.extend(sevens(guarded, [RIGHT, r"\boxed{8}"])))
    thread.start()
    thread.join(60)
    assert results == [1.0, 0.0]


@pytest.mark.slow
def test_memory_of_the_workers_and_of_the_parent_stays_flat(guarded: Math) -> None:
    def resident_kb(pid: int | str) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def judge_batch(first: int) -> dict[int | str, int]:
        golds = [str(n) for n in range(first, first + 2000)]
        # A text of its own each, so that no cache answers; an odd one is wrong.
        texts = [
            rf"\boxed{{\frac{{{2 * n + n % 2}\sqrt{{3}}}}{{2\sqrt{{3}}}}}}" for n in map(int, golds)
        ]
        found = guarded([""] * 2000, texts, answer=golds, completion_ids=[[]] * 2000)
        assert found == [float(n % 2 == 0) for n in map(int, golds)]
        pids: list[int | str] = ["self", *(worker.pid for worker in guarded._pool.workers)]
        return {pid: resident_kb(pid) for pid in pids}

    judge_batch(10_000)
    judge_batch(20_000)
    before = judge_batch(30_000)
    judge_batch(40_000)
    after = judge_batch(50_000)
    assert after.keys() == before.keys()
    assert all(after[pid] - before[pid] < 4096 for pid in before)
