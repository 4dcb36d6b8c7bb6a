"""The running sums: what is asked, what is right, what is held out."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from pydantic import ValidationError

from rlkit.registry import build
from rlkit.tasks.arithmetic import (
    DRAWN,
    Arithmetic,
    ArithmeticConfig,
    problems_of,
    question,
    response,
    running_sums,
    score_sum,
    split,
)
from rlkit.tasks.split import unit_hash


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("11,16,25#27", 1.0),
        ("#27", 1.0),
        ("any steps 1,2,3#27", 1.0),
        ("11,16,25#26", 0.0),
        ("11,16,25,27", 0.0),
        ("11#16#27", 0.0),
        ("11,16,25#27#", 0.0),
        ("11,16,25#27,", 0.0),
        ("11,16,25#27 ", 0.0),
        ("11,16,25#27+", 0.0),
        ("11,16,25#027", 0.0),
        ("27#", 0.0),
        ("", 0.0),
    ],
)
def test_the_text_after_the_only_hash_must_be_the_sum(completion, value):
    row = {"prompt": "3+8+5+9+2=", "answer": "27"}
    assert Arithmetic().score(completion, row) == value


def test_a_sum_below_ten_is_written_with_two_digits():
    assert score_sum("03#06", "06") == 1.0
    assert score_sum("03#6", "06") == 0.0


def test_the_format_of_prompt_and_response():
    assert question((3, 8, 5, 9, 2)) == "3+8+5+9+2="
    assert running_sums((3, 8, 5, 9, 2)) == [11, 16, 25, 27]
    assert response([11, 16, 25, 27]) == "11,16,25#27"
    assert response(running_sums((1, 2))) == "#03"


def test_rows_hold_the_prompt_and_its_sum_and_the_right_response_scores():
    data = Arithmetic().load(seed=0)
    for row in [*data.train[:50], *data.eval[:50], data.train[-1], data.eval[-1]]:
        operands = [int(digit) for digit in row["prompt"][:-1].split("+")]
        assert set(row) == {"prompt", "answer", "solution"}
        assert int(row["answer"]) == sum(operands)
        assert len(row["answer"]) == 2
        assert row["solution"] == response(running_sums(operands))
        assert Arithmetic().score(row["solution"], row) == 1.0


def test_every_problem_is_on_one_side_and_about_an_eighth_is_held_out():
    train, held_out = split(5)
    assert len(train) + len(held_out) == 9**5
    assert not set(train.problems) & set(held_out.problems)
    assert set(train.problems) | set(held_out.problems) == set(
        itertools.product(range(1, 10), repeat=5)
    )
    # Binomial(59049, 1/8): five standard deviations are 402.
    assert abs(len(held_out) - 9**5 / 8) < 402


def test_the_side_is_the_one_the_sha256_of_the_prompt_says():
    train, held_out = split(3)
    for rows, held in ((train, False), (held_out, True)):
        for row in rows:
            first = hashlib.sha256(row["prompt"].encode()).digest()[0]
            assert (first < 256 // 8) == held


def test_the_split_never_changes():
    assert round(unit_hash("3+8+5+9+2=") * 2**48) == 0xA5E076F15768
    assert round(unit_hash("") * 2**48) == 0xE3B0C44298FC
    assert len(split(5)[1]) == 7479
    assert [row["prompt"] for row in split(5)[1][:4]] == [
        "4+5+4+8+4=",
        "5+6+9+4+3=",
        "2+7+8+6+8=",
        "2+5+4+2+3=",
    ]
    assert Arithmetic().load(seed=0) == Arithmetic().load(seed=7)


def test_larger_numbers_are_drawn_once_and_for_all():
    train, held_out = split(3, 3)
    assert len(train) + len(held_out) == DRAWN == len({*train.problems, *held_out.problems})
    assert all(100 <= n <= 999 for problem in held_out.problems for n in problem)
    assert train.problems == sorted(train.problems)
    assert [row["prompt"] for row in held_out[:2]] == ["127+977+196=", "487+670+972="]
    # The mean of 196608 numbers that are equally likely is 549.5 with a standard error of 0.6.
    every = [n for problem in (*train.problems, *held_out.problems) for n in problem]
    assert abs(sum(every) / len(every) - 549.5) < 3


def test_few_problems_are_all_there():
    assert len(problems_of(2, 2)) == 90**2
    assert problems_of(2, 2)[0] == (10, 10)


def test_a_larger_sum_is_asked_scored_and_solved_alike():
    assert question((347, 682, 915)) == "347+682+915="
    row = build("task", "arithmetic", operands=3, digits=3).load(seed=0).eval[0]
    assert int(row["answer"]) == sum(int(n) for n in row["prompt"][:-1].split("+"))
    assert score_sum(row["solution"], row["answer"]) == 1.0
    assert score_sum("#" + row["answer"], row["answer"]) == 1.0


def test_the_embedded_models_know_two_kinds_of_sums():
    known = build("task", "arithmetic"), build("task", "arithmetic", operands=3, digits=3)
    assert [(task.embedded, task.base) for task in known] == [(True, "sums"), (True, "calls")]
    assert not build("task", "arithmetic", operands=3).embedded
    assert not build("task", "arithmetic", digits=3).embedded


def test_held_out_problems_come_in_the_order_of_their_hashes():
    hashes = [unit_hash(row["prompt"]) for row in split(5)[1]]
    assert hashes == sorted(hashes)
    assert hashes[-1] < 1 / 8


def test_rows_are_a_sequence_with_slices_and_negative_indices():
    rows = split(4)[0]
    assert len(rows[5:9]) == 4
    assert rows[5:9][1] == rows[6]
    assert rows[-1] == rows[len(rows) - 1]
    with pytest.raises(IndexError):
        rows[len(rows)]


@pytest.mark.parametrize("operands", [1, 7])
def test_the_number_of_operands_is_bounded(operands):
    with pytest.raises(ValidationError):
        ArithmeticConfig(operands=operands)


def test_the_number_of_operands_decides_the_prompts():
    data = build("task", "arithmetic", operands=2).load(seed=0)
    assert len(data.train) + len(data.eval) == 81
    assert all(len(row["prompt"]) == 4 for row in data.train)
