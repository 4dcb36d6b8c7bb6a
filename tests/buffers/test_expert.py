"""Demonstrations from the task's rows or a file, in place of new responses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, TypeVar

import pytest

from buffers.expert import Demonstrating, DemonstrationConfig, Expert
from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.interfaces import FileRow, RunContext
from rlkit.tasks.read import read_rows
from rlkit.testing.buffers import LONGEST, FakePrompts
from tests.buffers.test_replay import FewPrompts
from tests.cli import SMALL, metrics, run

B = TypeVar("B", bound=Demonstrating[Any])


def file(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(number: int, **columns: Any) -> FileRow:
    return FileRow(number=number, place=f"problem {number}", columns={"prompt": "q", **columns})


def opened(buffer: B, **context: Any) -> B:
    """The buffer of a run whose data is read as a task's."""
    buffer.open(RunContext(read_rows=read_rows, **context))
    return buffer


def texts(requests: list[Request]) -> list[list[str]]:
    """What each request shows; the fake tokenizer writes one token per character and a 0."""
    return [
        ["".join(map(chr, d.response_ids.tolist()[:-1])) for d in r.demonstrations]
        for r in requests
    ]


def test_the_rows_of_the_task_are_demonstrated_in_their_order() -> None:
    buffer, prompts = Expert(), FakePrompts()
    first, second = buffer.plan(3, 1, prompts), buffer.plan(2, 2, prompts)
    assert texts(first + second) == [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert [r.prompt.prompt_id for r in first] == ["prompt-0", "prompt-1", "prompt-2"]
    assert {r.n for r in first} == {0}
    assert all(r.demonstrations[0].response_ids[-1] == 0 for r in first), "the end is learned too"
    assert {r.demonstrations[0].reward for r in first} == {1.0}
    assert buffer.fresh_share(8) == 0


def test_a_demonstration_that_comes_twice_in_a_step_is_trained_once() -> None:
    assert len(Expert().plan(5, 1, FewPrompts(2))) == 2


def test_a_file_is_gone_through_once_an_epoch_in_changing_order(tmp_path: Path) -> None:
    path = file(
        tmp_path, *[{"prompt": f"q{i}", "text": f"a{i}", "answer": str(i)} for i in range(6)]
    )
    buffer = opened(Expert(DemonstrationConfig(path=path, column="text")))
    epochs = [
        [text for (text,) in texts(buffer.plan(6, step, FakePrompts()))] for step in range(1, 5)
    ]
    assert all(sorted(epoch) == [f"a{i}" for i in range(6)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    request = buffer.plan(1, 5, FakePrompts())[0]
    (name,) = texts([request])[0]
    assert request.prompt.text_or_messages == "q" + name[1:]
    assert request.prompt.columns == {"answer": name[1:]}, "the demonstration is no column"


def test_asked_again_in_a_step_no_demonstration_is_passed_over(tmp_path: Path) -> None:
    path = file(tmp_path, *[{"prompt": f"q{i}", "solution": f"a{i}"} for i in range(6)])
    buffer = opened(Expert(DemonstrationConfig(path=path)))
    assert len(buffer.plan(2, 1, FakePrompts())) == 2 and buffer.plan(2, 1, FakePrompts()) == []
    assert buffer.state_dict() == {"position": 2}


def test_the_order_depends_on_the_seed_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    path = file(tmp_path, *[{"prompt": f"q{i}", "solution": f"a{i}"} for i in range(20)])

    def made(seed: int) -> Expert:
        return opened(Expert(DemonstrationConfig(path=path)), seed=seed)

    buffer, other, again = made(1), made(2), made(1)
    assert texts(buffer.plan(20, 1, FakePrompts())) != texts(other.plan(20, 1, FakePrompts()))
    buffer.plan(7, 2, FakePrompts())
    again.load_state_dict(buffer.state_dict())
    for step in range(3, 23):
        assert texts(again.plan(4, step, FakePrompts())) == texts(
            buffer.plan(4, step, FakePrompts())
        )


def test_a_demonstration_that_is_too_long_is_an_error_or_left_out(tmp_path: Path) -> None:
    """The fake limit is 16 tokens, the end included."""
    fits = {"prompt": "q", "solution": "x" * (LONGEST - 1)}
    path = file(tmp_path, fits, {"prompt": "r", "solution": "x" * LONGEST})
    with pytest.raises(UserError, match=r"17 tokens.*max_completion_length=16"):
        opened(Expert(DemonstrationConfig(path=path))).plan(2, 1, FakePrompts())
    kept = opened(Expert(DemonstrationConfig(path=path, overlong="drop"))).plan(2, 1, FakePrompts())
    assert [r.prompt.text_or_messages for r in kept] == ["q"]


def test_nothing_but_overlong_demonstrations_is_an_error(tmp_path: Path) -> None:
    path = file(tmp_path, {"prompt": "r", "solution": "x" * LONGEST})
    with pytest.raises(UserError, match="each of 3 demonstrations"):
        opened(Expert(DemonstrationConfig(path=path, overlong="drop"))).plan(3, 1, FakePrompts())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ('{"prompt": "a", "solution": "b"}\n{"prompt"', "line 2 is not valid JSON"),
        ("[1]", "line 1 is not an object"),
        ('{"prompt": "a", "solution": ["b"]}', "line 1: 'solution' must be text, not a list"),
        ('{"prompt": "a", "solutions": "b"}', "has no 'solution'. Did you mean 'solutions'?"),
        ('{"solution": "b"}', "has no 'prompt'"),
        ('{"prompt": "a", "solution": ""}', "has no 'solution'"),
    ],
)
def test_wrong_files(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        opened(Expert(DemonstrationConfig(path=str(path))))
    assert message in str(error.value) and "d.jsonl" in str(error.value)


def test_every_row_of_the_task_needs_a_demonstration_and_a_file_makes_up_for_it(
    tmp_path: Path,
) -> None:
    rows = [row(1, solution="2"), row(2, answer="3")]
    path = file(tmp_path, {"prompt": "a", "solution": "b"})
    Expert().check_rows(read_rows, rows[:1])
    Expert(DemonstrationConfig(path=path)).check_rows(read_rows, rows)
    with pytest.raises(UserError, match="^problem 2 has no 'solution'"):
        Expert().check_rows(read_rows, rows)


def test_every_format_of_a_task_is_read_and_zero_is_an_answer(tmp_path: Path) -> None:
    """A byte order mark, a separator inside a text, gzip; a solution of 0."""
    rows = [{"prompt": "a\u2028b", "solution": 0}, {"prompt": "c", "solution": "1"}]
    text = "\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    buffer = opened(Expert(DemonstrationConfig(path=str(path))))
    shown = {r.prompt.text_or_messages: texts([r]) for r in buffer.plan(2, 1, FakePrompts())}
    assert shown == {"a\u2028b": [["0"]], "c": [["1"]]}


def test_a_prompt_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    """The fake prompts have 2 tokens."""
    path = file(tmp_path, {"prompt": "q", "solution": "a"})
    with pytest.raises(
        UserError, match=r"the prompt of a demonstration \(.* line 1\) has 2 tokens"
    ):
        opened(Expert(DemonstrationConfig(path=path))).plan(1, 1, FakePrompts(max_prompt_length=1))


def test_a_task_without_demonstrations_is_an_error_for_supervised_training() -> None:
    with pytest.raises(UserError, match="problem prompt-0 has no 'proof'"):
        Expert(DemonstrationConfig(column="proof")).plan(1, 1, FakePrompts())


@pytest.mark.slow
def test_supervised_training_generates_nothing_and_learns(tmp_path: Path) -> None:
    args = ("algorithm=sft", "train.steps=20", "train.learning_rate=3e-4", "train.warmup_steps=0")
    sizes = ("train.prompts_per_step=64", "eval.problems=128")
    assert run(*SMALL, *args, *sizes, "output_dir=out", cwd=tmp_path).status == 0
    rows = metrics(tmp_path / "out")
    trained = [row for row in rows if "policy/loss" in row]
    assert {row["rollouts/total"] for row in trained} == {0}
    assert trained[-1]["policy/loss"] < trained[0]["policy/loss"] / 2
    assert rows[-1]["eval/pass@1"] > rows[0]["eval/pass@1"] + 0.2
