"""Win rates of an evaluation against reference responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.answers import Answered
from rlkit.evaluation.contest import Contest, compared, from_file, responses_of
from rlkit.evaluation.records import write_answers
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.tasks.prompts import Prompts

ROWS = [{"prompt": f"{i}+1=", "answer": "2", "reference": str(i)} for i in range(3)]


def answered(prompts: Prompts, place: int, texts: list[str], scores: list[Any]) -> Answered:
    n = len(texts)
    return Answered(
        prompt=prompts[place],
        texts=texts,
        lengths=[1] * n,
        finish_reasons=["stop"] * n,
        totals=scores,
        components={"gold": scores},
        right=[False] * n,
    )


def test_a_win_counts_one_a_tie_half_and_what_has_no_score_nothing() -> None:
    """1 and 3 against 1 and 2: tie, loss, win, win; margins 0, -1, 2, 1."""
    assert compared([1.0, 3.0], [1.0, 2.0]) == (2.5 / 4, 0.5)
    assert compared([1.0, None], [None, 0.0]) == (1.0, 1.0)
    assert compared([None], [0.0]) is None
    scores = [0.0, 1.0, 0.5]
    assert compared(scores, scores) == (0.5, 0.0)


def test_references_come_from_a_column_as_a_text_or_a_list() -> None:
    by_id = responses_of("reference", ROWS)
    assert list(by_id.values()) == [["0"], ["1"], ["2"]]
    rows = [{**ROWS[0], "reference": ["a", "b"]}]
    assert list(responses_of("reference", rows).values()) == [["a", "b"]]
    with pytest.raises(UserError, match="Did you mean 'reference'.*Columns: answer, reference"):
        responses_of("referense", ROWS)
    with pytest.raises(UserError, match=r"reference: a problem has no such column with a response"):
        responses_of("reference", [{"prompt": "1", "reference": 3}])


def test_references_come_from_a_file_of_answers(tmp_path: Path, policy: Policy) -> None:
    prompts, file = Prompts("eval", ROWS, policy.tokenizer), tmp_path / "answers.parquet"
    sampled = [answered(prompts, i, [f"{i}", "9"], [0.0, 1.0]) for i in range(2)]
    greedy = [answered(prompts, i, ["7"], [0.0]) for i in range(2)]
    write_answers(file, sampled, greedy)
    assert list(responses_of(str(file), ROWS[:2]).values()) == [["0", "9"], ["1", "9"]]
    with pytest.raises(UserError, match="has no response to 1 of 3 problems"):
        responses_of(str(file), ROWS)
    write_answers(file, [], greedy)
    assert list(from_file(file).values()) == [["7"], ["7"]]


def test_what_is_no_file_of_answers_is_one_line(tmp_path: Path) -> None:
    from rlkit.stored.parquet import write_table

    with pytest.raises(UserError, match="does not exist; `rlkit eval MODEL --out` writes one"):
        responses_of(str(tmp_path / "a.parquet"), ROWS)
    import pyarrow

    write_table(pyarrow.table({"prompt_id": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="no file of answers: it has no column 'response'"):
        responses_of(str(tmp_path / "b.parquet"), ROWS)


def test_references_are_scored_once_by_that_reward_and_compared_problem_by_problem(
    policy: Policy,
) -> None:
    """The reward is the number itself: references 0, 1 and 2."""
    calls: list[list[str]] = []

    def gold(completions: list[str], **columns: Any) -> list[float]:
        calls.append(list(completions))
        assert columns["finish_reasons"] == ["stop"] * len(completions)
        assert len(columns["completion_ids"]) == len(columns["answer"]) == len(completions)
        return [float(text) for text in completions]

    prompts = Prompts("eval", ROWS, policy.tokenizer)
    contest = Contest(
        responses=responses_of("reference", [{**r, "reference": r["reference"]} for r in ROWS]),
        reward="gold",
        rewards=RewardSet({"gold": reward_class(gold)()}),
        tokenizer=policy.tokenizer,
    )
    sampled = [answered(prompts, i, ["1", "3"], [1.0, 3.0]) for i in range(3)]
    for _ in range(2):
        assert contest.values(sampled) == {
            "win_rate": [1.0, 0.75, 0.5],
            "win_margin": [2.0, 1.0, 0.0],
        }
    assert calls == [["0", "1", "2"]]
    none = [answered(prompts, 0, ["1"], [None])]
    assert contest.values(none) == {}


def test_an_end_of_sequence_behind_a_reference_is_no_part_of_its_text(policy: Policy) -> None:
    """As in the data of arXiv:2410.18252, whose summaries end with the token's text."""
    seen: list[str] = []

    def gold(completions: list[str], **columns: Any) -> list[float]:
        seen.extend(completions)
        return [0.0] * len(completions)

    rows = [{"prompt": "1+1=", "reference": "2<eos>"}]
    contest = Contest(
        responses=responses_of("reference", rows),
        reward="gold",
        rewards=RewardSet({"gold": reward_class(gold)()}),
        tokenizer=policy.tokenizer,
    )
    prompts = Prompts("eval", rows, policy.tokenizer)
    contest.values([answered(prompts, 0, ["2"], [0.0])])
    assert seen == ["2"]
