"""Answering chunk by chunk, with answers grouped by the math reward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.config.sampling import Sampling
from rlkit.evaluation.examination import Examiner, Protocol, outcomes
from rlkit.evaluation.figures import values_of
from rlkit.evaluation.problems import ProblemSet
from rlkit.evaluation.questions import reward_of
from rlkit.evaluation.store import COLUMNS, Store
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.tasks.prompts import Prompts
from tests.tiny import make_tokenizer

TEXTS = (
    *(r"\boxed{1/2}", r"Wait. So \boxed{0.5}", r"\boxed{3}", "I do not know.\nNot at all."),
    *(r"\boxed{7}", r"\boxed{8}", r"\boxed{8.0}", r"\boxed{9}"),
    *(r"\boxed{5}", r"\boxed{5}", r"\boxed{5}", r"\boxed{5}"),
)
"""Four samples of each of three problems: answers 1/2, 7 and 6."""
ROWS = [
    {"prompt": f"{i}+1=", "answer": answer, "accepted": [answer], "tolerance": 0.0, "id": i}
    for i, answer in enumerate(("\\frac{1}{2}", "7", "6"))
]


class Book:
    """An engine that answers from a list; a token is the number of the text."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.calls.append(call.stream)
        return [
            [self.generation(int(str(r.prompt.columns["id"])) * 4 + s) for s in range(r.n)]
            for r in call.requests
        ]

    def generation(self, number: int) -> Generation:
        return Generation(
            response_ids=torch.tensor([number] * (number + 1)),
            logp=torch.zeros(number + 1),
            policy_version=torch.zeros(number + 1, dtype=torch.int32),
            finish_reason="length" if number == 0 else "stop",
            extras={},
        )


class Reader:
    """A tokenizer whose tokens are texts."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return TEXTS[int(ids[0])]


@pytest.fixture
def problems() -> ProblemSet:
    return ProblemSet(name="halves", title="halves", rows=ROWS, source="here")


@pytest.fixture
def examiner(problems: ProblemSet) -> Iterator[Examiner]:
    reward: Any = reward_of(problems)
    engine: Any = Book()
    yield Examiner(
        engine=engine, tokenizer=Reader(), rewards=RewardSet({"math": reward}), judge="math"
    )
    reward.close()


PROTOCOL = Protocol(samples=4, greedy=True, sampling=Sampling(), responses=8)


def test_equal_answers_vote_together(
    examiner: Examiner, problems: ProblemSet, tmp_path: Path
) -> None:
    store, prompts = Store(tmp_path), Prompts("halves", ROWS, make_tokenizer(), "never")
    assert examiner.complete(problems, prompts, PROTOCOL, store) == 2
    rows = store.read("halves", 2, tuple(COLUMNS))
    drawn = [row for row in rows if not row["greedy"]]
    assert [row["class"] for row in drawn[:8]] == [0, 0, 1, None, 0, 1, 1, 2]
    assert [row["given"] for row in drawn[:4]] == ["1/2", "0.5", "3", None]
    assert [row["right"] for row in drawn[:5]] == [True, True, False, False, True]
    assert [row["reflects"] for row in drawn[:3]] == [False, True, False]
    assert [row["tokens"] for row in drawn[:3]] == [1, 2, 3] and drawn[0]["id"] == "0"
    values = values_of(
        outcomes(rows, greedy=False, compared=True),
        outcomes(rows, greedy=True, compared=False),
        (4,),
    )
    assert values["maj@4"] == [1.0, 0.0, 0.0] and values["pass@1"] == [0.5, 0.25, 0.0]
    assert values["greedy"] == [1.0, 1.0, 0.0] and values["truncated"] == [0.25, 0.0, 0.0]


def test_what_happened_to_the_reward_is_kept(
    examiner: Examiner, problems: ProblemSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two chunks, each sampled and greedy."""
    monkeypatch.setattr(examiner.rewards.rewards["math"], "counts", lambda: {"lost": 1})
    store, prompts = Store(tmp_path), Prompts("halves", ROWS, make_tokenizer(), "never")
    assert examiner.complete(problems, prompts, PROTOCOL, store) == 2
    assert store.counts("halves", 2) == {"lost": 4}


def test_a_chunk_that_is_there_is_not_answered_again(
    examiner: Examiner, problems: ProblemSet, tmp_path: Path
) -> None:
    store, prompts = Store(tmp_path), Prompts("halves", ROWS, make_tokenizer(), "never")
    examiner.complete(problems, prompts, PROTOCOL, store)
    store.file("halves", 0).unlink()
    engine: Any = examiner.engine
    engine.calls.clear()
    examiner.complete(problems, prompts, PROTOCOL, store)
    assert engine.calls == [("eval/halves", 0, 0), ("eval-greedy/halves", 0, 0)]
