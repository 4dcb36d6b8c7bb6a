"""Which responses are shown, and as what."""

from __future__ import annotations

import pytest

from rlkit.trackers.samples import COLUMNS, SamplesConfig, as_text, cells, distributions, spread


def row(reward: float, **more: object) -> dict[str, object]:
    return {"prompt": "p", "response": f"r{reward}", "reward": reward, "age": 0, **more}


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, []), (1, [8]), (2, [0, 8]), (3, [0, 4, 8]), (9, list(range(9))), (20, list(range(9)))],
)
def test_the_worst_and_the_best_are_shown_and_some_between(count: int, shown: list[int]) -> None:
    rows = [row(reward) for reward in (5, 0, 8, 3, 1, 7, 2, 6, 4)]
    assert [each["reward"] for each in spread(rows, count)] == shown


def test_equal_rewards_keep_the_order_of_the_batch() -> None:
    rows = [row(1, prompt=str(i)) for i in range(5)]
    assert [each["prompt"] for each in spread(rows, 2)] == ["0", "4"]


def test_the_first_step_and_every_tenth_after_it_are_due() -> None:
    config = SamplesConfig(samples=1, samples_every=10)
    assert [step for step in range(25) if config.samples_due(step)] == [1, 11, 21]
    assert not SamplesConfig(samples=0).samples_due(1)


def test_messages_are_text_with_roles() -> None:
    messages = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": None}]
    assert as_text(messages) == "user: 1+1=\nassistant: null"
    assert as_text("plain") == "plain"


def test_a_cell_that_is_unknown_is_empty() -> None:
    found = dict(zip(COLUMNS, cells(3, row(0.5, length=4)), strict=True))
    expected = {"step": 3, "prompt": "p", "response": "r0.5", "reward": 0.5, "age": 0, "length": 4}
    assert found == {**expected, "advantage": None, "ratio": None}


def test_distributions_are_of_what_the_rows_have() -> None:
    rows = [row(1, ratio=0.5), row(0)]
    assert distributions(rows) == {"reward": [1.0, 0.0], "age": [0.0, 0.0], "ratio": [0.5]}
