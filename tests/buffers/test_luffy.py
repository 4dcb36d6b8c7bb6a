"""Demonstrations beside new responses of the same prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buffers.luffy import Luffy, LuffyConfig
from rlkit.errors import UserError
from rlkit.tasks.read import read_rows
from rlkit.testing.buffers import FakePrompts
from tests.buffers.test_expert import file, opened, row, texts
from tests.buffers.test_replay import FewPrompts, check_real_run
from tests.cli import run


def test_a_demonstration_of_a_prompt_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    """The fake prompts have 2 tokens."""
    path = file(tmp_path, {"prompt": "q", "solution": "a"})
    luffy = opened(Luffy(LuffyConfig(path=path, overlong="drop")), problems={"p": "q"})
    prompts = FakePrompts(max_prompt_length=1)
    prompts.known["p"] = prompts.prompt("p", {"prompt": "q"})
    assert texts([luffy._request(prompts.known["p"], prompts, shows=True)]) == [[]]


def test_a_column_that_no_row_of_the_task_has_is_an_error_and_one_that_some_have_is_not() -> None:
    rows = [row(1, answer="2"), row(2, solution="3")]
    Luffy().check_rows(read_rows, rows)
    Luffy().check_rows(read_rows, [])
    with pytest.raises(UserError, match=r"^problem 1 has no 'proof'\..*buffer\.column"):
        Luffy(LuffyConfig(column="proof")).check_rows(read_rows, rows)


FRAMED = [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}]


@pytest.mark.parametrize(
    ("asked", "count", "why"),
    [
        ("q1", 2, ""),
        ("q1 now", 0, ' The task\'s prompts end with " now" (task.suffix).'),
        (FRAMED, 0, " 2 others would without the messages before them, such as a system prompt."),
        ("other", 0, ""),
    ],
)
def test_how_many_demonstrations_answer_a_prompt_is_said(
    asked: Any, count: int, why: str, tmp_path: Path
) -> None:
    heard: list[str] = []
    rows = [{"prompt": q, "solution": "a"} for q in ("q1", "q1", "q2")]
    path = file(tmp_path, *rows)
    opened(Luffy(LuffyConfig(path=path)), problems={"p": asked}, say=heard.append)
    said = f"{path}: {count} of 3 demonstrations answer a prompt of the task."
    assert heard == [said + why]


def test_a_demonstration_takes_the_place_of_a_new_response() -> None:
    """LUFFY's 7 + 1, here 3 + 1; the run's rewards score it."""
    requests = Luffy().plan(2, 1, FakePrompts())
    assert [(r.n, len(r.demonstrations)) for r in requests] == [(3, 1), (3, 1)]
    assert texts(requests) == [["1"], ["2"]]
    assert requests[0].demonstrations[0].reward is None
    assert Luffy().fresh_share(8) == 8


def test_groups_may_grow_instead_and_rewards_be_given() -> None:
    (request,) = Luffy(LuffyConfig(keep_size=False, reward=0.5)).plan(1, 1, FakePrompts())
    assert (request.n, request.demonstrations[0].reward) == (4, 0.5)


def test_prompts_without_a_demonstration_get_ordinary_groups(tmp_path: Path) -> None:
    """The file answers the second prompt three times; two may join."""
    rows = [{"prompt": "prompt-1", "solution": text} for text in ("a", "b", "c")]
    buffer = opened(Luffy(LuffyConfig(path=file(tmp_path, *rows), demonstrations=2)))
    requests = buffer.plan(3, 1, FakePrompts())
    assert texts(requests) == [[], ["a", "b"], []]
    assert [r.n for r in requests] == [4, 2, 4]
    assert texts(Luffy(LuffyConfig(column="proof")).plan(1, 1, FakePrompts())) == [[]]


def test_a_prompt_that_comes_twice_in_a_step_is_answered_twice_and_shown_once() -> None:
    requests = Luffy().plan(4, 1, FewPrompts(2))
    assert [len(r.demonstrations) for r in requests] == [1, 1, 0, 0]
    assert [r.n for r in requests] == [3, 3, 4, 4]


def test_a_group_needs_a_place_for_a_new_response() -> None:
    with pytest.raises(UserError, match="leaves no place"):
        Luffy().plan(1, 1, FakePrompts(num_generations=1))


def test_numbers_tell_demonstrations_apart() -> None:
    requests = Luffy().plan(50, 1, FakePrompts())
    numbers = [r.demonstrations[0].number for r in requests]
    assert len(set(numbers)) == 50 and min(numbers) >= 1
    again = Luffy().plan(50, 1, FakePrompts())
    assert [r.demonstrations[0].number for r in again] == numbers


@pytest.mark.slow
def test_luffy_trains_on_groups_with_demonstrations(tmp_path: Path) -> None:
    rows = check_real_run("algorithm=luffy", "rollout.num_generations=4", cwd=tmp_path)
    assert rows[-1]["rollouts/total"] == 3 * 4 * 3, "three new responses in each group of four"


def test_a_loss_that_cannot_use_demonstrations_is_refused_at_once(tmp_path: Path) -> None:
    out = run("algorithm=grpo", "buffer=luffy", "dry_run=true", cwd=tmp_path)
    assert out.status == 2
    assert "buffer=luffy adds demonstrations" in out.err and len(out.err.splitlines()) == 1
