"""The `reasoning_gym` task: its own scores, a split by question, a worker that is safe to feed."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.rewards.pool import Verdict
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.task import default_rewards
from rlkit.tasks.reasoning_gym import HELD_OUT, ReasoningGym, divide, draws, extract
from rlkit.tasks.split import unit_hash

reasoning_gym = importlib.import_module("reasoning_gym")


def task(**fields: Any) -> ReasoningGym:
    built: ReasoningGym = build("task", "reasoning_gym", **fields)
    return built


def entry(question: str, answer: str, **metadata: Any) -> dict[str, Any]:
    return {
        "prompt": question,
        "entry": {"question": question, "answer": answer, "metadata": metadata},
    }


@pytest.fixture(scope="module")
def sums() -> Iterator[ReasoningGym]:
    """One worker for all tests that score sums."""
    made = task(answer_format="last_number", timeout=20)
    yield made
    made._scorer.close()


@pytest.mark.parametrize(
    ("completion", "answer_format", "answer"),
    [
        (" 12 \n", "raw", "12"),
        ("It is 12.", "raw", "It is 12."),
        ("3 + 9 = 12.", "last_number", "12"),
        ("5-2", "last_number", "2"),
        ("5 - 7 = -2", "last_number", "-2"),
        ("5 - 7 = \u22122", "last_number", "-2"),
        ("about 1,234,567 people", "last_number", "1234567"),
        ("1,2,3", "last_number", "3"),
        ("pi is 3.14.", "last_number", "3.14"),
        ("I do not know", "last_number", None),
        ("<answer> 7 </answer>", "tag", "7"),
        ("<answer>1</answer> or <answer>a\nb</answer>, surely", "tag", "a\nb"),
        ("7", "tag", None),
        ("<answer>7", "tag", None),
    ],
)
def test_the_answer_is_taken_from_the_completion(completion, answer_format, answer):
    assert extract(completion, answer_format) == answer


def test_scores_are_the_data_sets_own(sums):
    row = sums.load(0).train[0]
    right = row["answer"]
    assert sums.score(f"First I add. The sum is {right}.", row) == 1.0
    dataset = reasoning_gym.create_dataset("chain_sum", size=1, seed=0)
    wrong = dataset.score_answer(str(int(right) + 1), row["entry"])
    assert sums.score(f"The sum is {int(right) + 1}.", row) == wrong < 1.0
    assert sums.score("I do not know.", row) == 0.0


def test_a_score_may_be_partial():
    asked = task(dataset="word_sorting", timeout=20)
    dataset = reasoning_gym.create_dataset("word_sorting", size=1, seed=0)
    row = asked.load(0).train[0]
    words = row["answer"].split(", ")
    text = ", ".join([*words[1:], words[0]])
    expected = dataset.score_answer(text, row["entry"])
    assert 0 < expected < 1
    assert asked.score(text, row) == expected
    asked._scorer.close()


def test_the_split_is_by_question_and_questions_are_different():
    data = task(size=500, eval_size=64).load(0)
    train, held_out = ([row["prompt"] for row in rows] for rows in (data.train, data.eval))
    assert (len(set(train)), len(set(held_out))) == (len(train), len(held_out)) == (500, 64)
    assert all(unit_hash(prompt) >= HELD_OUT for prompt in train)
    assert all(unit_hash(prompt) < HELD_OUT for prompt in held_out)


def test_no_seed_and_no_size_moves_a_question_to_the_other_side():
    small = task(params={"max_terms": 2, "max_digits": 1}, size=40, eval_size=10)
    large = task(params={"max_terms": 2, "max_digits": 1}, size=400, eval_size=50, data_seed=5)
    trained = {row["prompt"] for row in (*small.load(0).train, *large.load(0).train)}
    evaluated = {row["prompt"] for row in (*small.load(0).eval, *large.load(0).eval)}
    assert not trained & evaluated


def test_the_problems_depend_on_the_data_seed_and_not_on_the_runs():
    assert task(size=20, eval_size=5).load(0) == task(size=20, eval_size=5).load(1)
    assert task(size=20, eval_size=5).load(0) != task(size=20, eval_size=5, data_seed=1).load(0)


def test_a_data_set_that_draws_from_the_global_generator_is_deterministic_too():
    state = random.getstate()
    asked = task(dataset="list_functions", size=20, eval_size=4)
    assert asked.load(0) == asked.load(0)
    assert random.getstate() == state


def test_few_questions_give_fewer_problems_and_too_few_are_said(monkeypatch):
    one_digit = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
    data = task(params=one_digit).load(0)
    assert len(data.train) + len(data.eval) <= 200
    assert len(data.train) > 150
    monkeypatch.setattr(ReasoningGym, "_create", lambda self, size: [{"question": "same"}] * size)
    with pytest.raises(UserError, match="only 1 different questions"):
        task().load(0)


def test_draws_end_when_both_sides_are_full():
    drawn = []

    def draw(index: int) -> dict[str, str]:
        drawn.append(index)
        return {"question": str(index)}

    train, held_out = divide(draw, 20, 3)
    assert (len(train), len(held_out)) == (20, 3)
    assert drawn == list(range(len(drawn)))
    assert len(drawn) < draws(20, 3)
    last = unit_hash(str(drawn[-1])) < HELD_OUT
    side = held_out if last else train
    assert side[-1] == {"question": str(drawn[-1])}


def test_rows_keep_what_the_scorer_reads_and_the_suffix_is_only_in_the_prompt():
    row = task(suffix=" Answer with a number.", size=3, eval_size=1).load(0).train[0]
    assert row["prompt"] == row["entry"]["question"] + " Answer with a number."
    assert row["answer"] == row["entry"]["answer"]


def test_params_reach_the_data_set():
    data = task(params={"min_terms": 3, "max_terms": 3}, size=30, eval_size=1).load(0)
    assert {row["entry"]["metadata"]["num_terms"] for row in data.train} == {3}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dataset": "chain_sums"}, ["chain_sums", "'chain_sum'"]),
        ({"params": {"min_term": 2}}, ["task.params.min_term", "'min_terms'", "max_digits"]),
        ({"params": {"seed": 2}}, ["task.params.seed"]),
        ({"params": {"size": 2}}, ["task.params.size"]),
        ({"params": {"min_terms": 9}}, ["max_terms must be >= min_terms"]),
        ({"params": {"min_terms": "x"}}, ["chain_sum"]),
        ({"dataset": "composite"}, ["composite"]),
    ],
)
def test_wrong_names_and_settings_are_one_line(fields, said):
    with pytest.raises(UserError) as raised:
        task(**fields).load(0)
    assert "\n" not in str(raised.value)
    for words in said:
        assert words in str(raised.value)


def test_the_package_is_imported_by_load_alone():
    code = "import sys, rlkit.tasks.reasoning_gym; sys.exit('reasoning_gym' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_text_that_is_code_can_neither_write_nor_hang(tmp_path):
    """The scorer of string_insertion evaluates a text that is not the answer."""
    asked = task(dataset="string_insertion", timeout=2)
    row = entry("Q", "AB")
    assert asked.score("['A', 'B']", row) == pytest.approx(0.1)
    target = tmp_path / "written"
    assert asked.score(f"[open({str(target)!r}, 'w').write('x') and 'A', 'B']", row) == 0.0
    assert asked.score(f"[__import__('os').mkdir({str(target)!r}) or 'A', 'B']", row) == 0.0
    assert not target.exists()
    assert asked.counts() == {}
    assert asked.score("9**9**9**9", row) == 0.0
    assert asked.counts() == {"timeouts": 1} and asked.counts() == {}
    assert asked.score("AB", row) == 1.0
    asked._scorer.close()


def test_a_lost_worker_leaves_the_completion_out_and_a_batch_is_judged_at_once(monkeypatch):
    asked, given = task(answer_format="last_number"), []

    def judge(items, seconds):
        given.append([item["text"] for item in items])
        return [Verdict("score", 0.5), Verdict("lost"), Verdict("limit"), Verdict("lost")]

    monkeypatch.setattr(asked._scorer.pool, "judge", judge)
    rewards = RewardSet(default_rewards(asked, "gym"))
    columns = {"entry": [{"question": "q"}] * 4}
    found = rewards.score(["p"] * 4, ["1", "is 2", "3", "no"], [[1]] * 4, columns)
    assert given == [["1", "2", "3", None]]
    assert found.total == [0.5, None, 0.0, None]
    assert found.counts == {"lost": 2, "timeouts": 1} and asked.counts() == {}


@pytest.mark.slow
def test_params_reach_the_scorer_too():
    params = {"min_num_decimal_places": 1, "max_num_decimal_places": 1, "precision": 5}
    asked = task(dataset="decimal_arithmetic", params=params, timeout=20)
    row = entry("1/1 = ?", "1.0")
    assert asked.score("1.05", row) == 1.0
    without = task(dataset="decimal_arithmetic", timeout=20).score("1.05", row)
    assert without is not None and without < 1.0
    asked._scorer.close()
