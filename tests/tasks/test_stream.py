"""The training prompts in the order in which they are taken."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rlkit.batch import Prompt
from rlkit.config.prompts import PromptsConfig
from rlkit.errors import UserError
from rlkit.rewards.judges import Judges
from rlkit.runs.checkpoint import load_tree, save_tree
from rlkit.tasks.stream import Choice, PromptStream
from rlkit.testing.base import stored
from tests.tasks.answers import group_of
from tests.tasks.test_prompts import ROWS, prompts

MIX = [
    *({"prompt": f"{i}+1=", "answer": "1", "task": "big"} for i in range(9)),
    *({"prompt": f"{i}+2=", "answer": "1", "task": "small"} for i in range(3)),
]


def mixed(weights: dict[str, float] | None = None, seed: int = 5, **settings: Any) -> PromptStream:
    choice = Choice(
        config=PromptsConfig(**settings),
        shares=weights or {"big": 2, "small": 1},
        judges=Judges("one", {"big": "one", "small": "other"}),
    )
    return PromptStream(prompts(MIX), seed, 2, 8, choice=choice)


def names(taken: list[Prompt]) -> list[str]:
    return [prompt.prompt_id for prompt in taken]


def tasks(taken: list[Prompt]) -> Counter[object]:
    return Counter(prompt.columns["task"] for prompt in taken)


def test_each_epoch_is_another_permutation_and_the_position_is_all_there_is() -> None:
    stream = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    taken = [p.prompt_id for p in stream.take(21)]
    epochs = [taken[i : i + 7] for i in (0, 7, 14)]
    assert all(len(set(e)) == 7 for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    resumed = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    resumed.load_state_dict({"position": 10, "orders": {"": {"passed": 10}}})
    assert [p.prompt_id for p in resumed.take(11)] == taken[10:]
    assert resumed.state_dict()["position"] == 21
    other = PromptStream(prompts(), seed=6, num_generations=2, max_completion_length=8)
    assert [p.prompt_id for p in other.take(21)] != taken


def test_what_was_not_asked_comes_first_and_after_a_resume_too() -> None:
    stream = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    plain = names(PromptStream(prompts(), 5, 2, 8).take(14))
    taken = stream.take(5)
    stream.give_back(taken[2:])
    resumed = PromptStream(prompts(), seed=5, num_generations=2, max_completion_length=8)
    resumed.load_state_dict(stored(stream.state_dict()))
    for each in (stream, resumed):
        assert names(each.take(1)) == plain[2:3]
        assert names(each.take(4)) == plain[3:7] and names(each.take(7)) == plain[7:]


def test_a_prompt_is_found_by_its_id_with_its_columns() -> None:
    stream = PromptStream(prompts(), seed=0, num_generations=1, max_completion_length=8)
    (prompt,) = stream.take(1)
    again = stream.get(prompt.prompt_id)
    assert again.text_or_messages == prompt.text_or_messages and again.columns == prompt.columns
    assert set(prompt.columns) == {"answer"}
    with pytest.raises(UserError, match=r"train-7, which is not in the task's data any more"):
        stream.get("train-7")


def test_a_prompt_keeps_its_id_wherever_it_stands_and_the_data_is_told_apart() -> None:
    """The places of the order stay those of the seed; ids go with the rows."""

    def stream(rows: list[dict[str, Any]]) -> PromptStream:
        return PromptStream(prompts(rows), seed=5, num_generations=2, max_completion_length=8)

    kept, turned = stream(ROWS), stream(ROWS[::-1])
    edited = stream([{**ROWS[0], "answer": "1"}, *ROWS[1:]])
    for prompt in kept.prompts:
        assert turned.get(prompt.prompt_id).text_or_messages == prompt.text_or_messages
    with pytest.raises(UserError, match="not in the task's data"):
        edited.get(kept.prompts.ids[0])
    assert edited.prompts.ids[1:] == kept.prompts.ids[1:]
    again = stream([dict(reversed(row.items())) for row in ROWS])
    assert kept.data == again.data == kept.state_dict()["data"], "columns have no order"
    assert len({str(each.data) for each in (kept, turned, edited, stream(ROWS[:6]))}) == 4


def test_each_task_has_its_share_of_every_epoch_and_a_small_one_repeats() -> None:
    stream = mixed()
    for _ in range(4):
        taken = stream.take(12)
        assert tasks(taken) == {"big": 8, "small": 4}
    stats = stream.stats()
    assert stats == {"big_epochs": 32 / 9, "small_epochs": 16 / 3}
    whole = mixed().take(48)
    small = names([prompt for prompt in whole if prompt.columns["task"] == "small"])
    big = names([prompt for prompt in whole if prompt.columns["task"] == "big"])
    assert all(len(set(small[i : i + 3])) == 3 for i in range(0, 15, 3)), "once per its own epoch"
    assert all(len(set(big[i : i + 9])) == 9 for i in range(0, 27, 9))


def test_a_mix_does_not_depend_on_how_many_are_taken_at_once() -> None:
    whole = names(mixed().take(40))
    stream = mixed()
    assert names([prompt for n in (1, 5, 0, 12, 20, 2) for prompt in stream.take(n)]) == whole
    assert names(mixed(seed=6).take(40)) != whole


def test_a_task_without_weight_is_not_trained_on() -> None:
    """Its rows are not among the training problems."""
    rows = [row for row in MIX if row["task"] == "big"]
    stream = PromptStream(prompts(rows), 0, 2, 8, choice=Choice(shares={"big": 1, "small": 0}))
    assert tasks(stream.take(30)) == {"big": 30}


def test_a_task_of_which_no_prompt_is_left_is_told() -> None:
    rows = [row for row in MIX if row["task"] == "big"]
    choice = Choice(shares={"big": 1, "small": 1})
    with pytest.raises(UserError, match=r"task\.parts\.small has no training problem"):
        PromptStream(prompts(rows), 0, 2, 8, choice=choice)


def step(stream: PromptStream, n: int = 4) -> list[str]:
    """Take some prompts; an even number in one is right, by the reward of its task."""
    taken = stream.take(n)
    judge = {"big": "one", "small": "other"}
    stream.observe(
        [
            group_of(
                p,
                [float(int(str(p.text_or_messages)[0]) % 2 == 0)] * 2,
                judge[str(p.columns["task"])],
            )
            for p in taken
        ]
    )
    return names(taken)


@pytest.mark.parametrize("order", ["shuffled", "easy_first", "target"])
@pytest.mark.parametrize("drop_solved", [None, 2])
def test_a_resumed_stream_takes_the_same(
    order: str, drop_solved: int | None, tmp_path: Any
) -> None:
    """Through a file, as a checkpoint keeps it, in the middle of an epoch."""
    settings: dict[str, Any] = {"order": order, "drop_solved": drop_solved, "target": 0.8}
    stream = mixed(**settings)
    for _ in range(7):
        step(stream)
    save_tree(tmp_path / "prompts", stream.state_dict())
    later = [step(stream) for _ in range(12)]
    resumed = mixed(**settings)
    resumed.load_state_dict(load_tree(tmp_path / "prompts"))
    assert [step(resumed) for _ in range(12)] == later
    assert resumed.stats() == stream.stats()


def test_solved_prompts_of_each_task_leave() -> None:
    stream = mixed(drop_solved=1, forget=0)
    for _ in range(12):
        step(stream)
    assert {name.partition("+")[0] for name in texts(stream.take(12))} == {"1", "3", "5", "7"}
    assert stream.stats()["left_out"] == 7 and stream.stats()["seen"] == 1


def texts(taken: list[Prompt]) -> list[str]:
    return [str(prompt.text_or_messages) for prompt in taken]


def test_pass_rates_read_the_reward_of_the_task_and_the_policys_own_responses() -> None:
    stream = mixed(order="target", forget=0)
    big, small = stream.prompts[0], stream.prompts[9]
    stream.observe(
        [
            group_of(big, [1.0, 0.0, None], "one"),
            group_of(small, [1.0], "one"),
            group_of(small, [1.0, 1.0], "other"),
            group_of(stream.prompts[1], [1.0], "one", source="expert"),
        ]
    )
    assert stream.rates is not None
    assert stream.rates.right.tolist() == [1.0, *[0.0] * 8, 2.0, 0.0, 0.0]
    assert stream.rates.wrong.sum() == 1 and stream.rates.seen.sum() == 2
    assert stream.stats()["pass_rate"] == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_without_pass_rates_nothing_is_kept_of_responses() -> None:
    stream = mixed()
    step(stream)
    assert stream.rates is None and stream.state_dict()["rates"] == {}


def test_known_rates_order_the_first_epoch() -> None:
    rows = [{**row, "rate": place / 10} for place, row in enumerate(ROWS)]
    config = PromptsConfig(order="easy_first", pass_rate_column="rate")
    stream = PromptStream(prompts(rows), 0, 2, 8, choice=Choice(config=config))
    assert texts(stream.take(7)) == [row["prompt"] for row in rows[::-1]]
