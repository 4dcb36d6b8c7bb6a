from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from rlkit.environments.reasoning_gym import ReasoningGymTries, ReasoningGymTriesConfig, discounted
from rlkit.errors import UserError
from rlkit.rewards.pool import Verdict
from rlkit.tasks.gym_scorer import GymScorer
from rlkit.tasks.reasoning_gym import ReasoningGym, ReasoningGymConfig
from tests.environments.asking import contents, events, opened, start


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    config = ReasoningGymConfig(dataset="chain_sum", size=4, eval_size=2)
    return dict(ReasoningGym(config).load(0).train[0])


@pytest.fixture(scope="module")
def tries() -> Iterator[ReasoningGymTries]:
    config = ReasoningGymTriesConfig(
        answer_format="last_number", feedback="{score}: again", discount=0.5
    )
    environment = ReasoningGymTries(config)
    yield environment
    environment.close()


def test_the_last_try_counts_discounted() -> None:
    assert [discounted(1.0, n, 0.5) for n in (0, 1, 2, 3)] == [1.0, 1.0, 0.5, 0.25]
    assert discounted(None, 2, 0.5) is None


def test_a_wrong_answer_is_told_and_tried_again(
    tries: ReasoningGymTries, row: dict[str, Any]
) -> None:
    opened(tries)
    right = f"It is {row['answer']}."
    assert tries.begin([start(i, **row) for i in range(3)]) == [None] * 3
    first, second, third = tries.step([0, 1, 2], [right, "1", "no"])
    assert first.done and not second.done and not third.done
    assert contents(second) == ["0: again"] and second.messages[0]["role"] == "user"
    assert tries.rewards([0, 1]) == [1.0, 0.0]
    (second, third) = tries.step([1, 2], [right, ""])
    assert second.done and events(third) == {"void_turns": 1}
    assert tries.rewards([1]) == [0.5]
    (third,) = tries.step([2], ["0"])
    assert third.done and third.finish_reason == "stop"  # the last of three tries
    assert tries.rewards([2]) == [0.0]
    tries.end([0, 1, 2])


def test_answers_are_scored_under_the_settings_of_the_task(tries: ReasoningGymTries) -> None:
    """decimal_arithmetic allows a unit of the last place, of which it has 2 here and usually 6."""
    params = {"min_num_decimal_places": 2, "max_num_decimal_places": 2}
    config = ReasoningGymConfig(dataset="decimal_arithmetic", params=params, size=4, eval_size=2)
    row = dict(ReasoningGym(config).load(0).train[0])
    near = f"{Decimal(row['answer']) + Decimal('0.004')}"
    opened(tries)
    tries.begin([start(0, **row), start(1, **{**row, "params": {}})])
    tries.step([0, 1], [near, near])
    assert tries.rewards([0, 1]) == [1.0, 0.0]
    tries.end([0, 1])


def test_the_answers_of_a_data_set_are_judged_at_once_and_what_goes_wrong_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[tuple[str, list[str | None]]] = []

    def judge(
        scorer: GymScorer, entries: list[Any], texts: list[str | None], seconds: float
    ) -> list[Verdict]:
        judged.append((scorer.dataset, texts))
        return [Verdict(kind, 0.0 if kind == "score" else None) for kind in texts if kind]

    monkeypatch.setattr(GymScorer, "judge", judge)
    tries = ReasoningGymTries()
    opened(tries)
    entries: list[Any] = [{"metadata": {"source_dataset": name}} for name in ("a", "b", "a")]
    tries.begin([start(i, entry=entry) for i, entry in enumerate(entries)])
    late, wrong, lost = tries.step([0, 1, 2], ["limit", "score", "lost"])
    assert judged == [("a", ["limit", "lost"]), ("b", ["score"])]
    assert not late.done and events(late) == {"timeouts": 1}
    assert not wrong.done and events(wrong) == {}
    assert lost.done and lost.finish_reason == "tool_error" and events(lost) == {"lost": 1}
    assert tries.rewards([0, 1, 2]) == [0.0, 0.0, None]


def test_other_problems_get_one_line(tries: ReasoningGymTries) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a"}, {"entry": {}}, {"entry": "x"}]
    for wrong in rows:
        with pytest.raises(UserError, match="task=reasoning_gym alone"):
            tries.check([wrong])
    assert tries.scores and tries.call_format == "none" and tries.schemas({}) == []
