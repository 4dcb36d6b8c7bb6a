"""What `eval.on` names: read, marked by its own reward, answered by its own settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.benchmark_sets import benchmark_sets
from rlkit.composition.describe import describe
from rlkit.config.run import EvalConfig, ModelConfig, RunConfig
from rlkit.errors import UserError
from tests.compositions import composed
from tests.tiny import make_policy


def config(model: str = "a/model", **settings: Any) -> RunConfig:
    return RunConfig(
        output_dir="out", model=ModelConfig(name=model), eval=EvalConfig.model_validate(settings)
    )


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SUMS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(5)]


def test_nothing_is_read_if_nothing_is_named() -> None:
    assert benchmark_sets(config()) == ()
    assert composed().benchmarks == ()


def test_a_file_is_marked_by_the_math_reward_and_a_task_by_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *SUMS)
    settings: dict[str, Any] = {
        "samples": 4,
        "k": [2, 4],
        "on_samples": {"arithmetic": 2},
        "problems": 3,
    }
    file, task = benchmark_sets(config(on=[str(path), "arithmetic"], **settings))
    assert (file.name, file.judge, list(file.rewards)) == ("eval/sums", "math", ["math"])
    assert (task.name, task.judge) == ("eval/arithmetic", "arithmetic")
    assert file.config.samples == 4 and file.config.ks == (1, 2, 4)
    assert task.config.samples == 2 and task.config.ks == (1, 2), "no k above the samples"
    assert file.config.problems == len(file.problems.rows) == 5, "eval.problems is the task's"
    assert task.config.problems == len(task.problems.rows) > 1000


def test_a_benchmark_is_read_from_the_folder_and_has_no_more_problems_than_asked(
    tmp_path: Path,
) -> None:
    write(tmp_path / "aime24.jsonl", *SUMS)
    (found,) = benchmark_sets(config(on=["aime24"], data=str(tmp_path), on_problems=2))
    assert found.name == "eval/aime24" and len(found.problems.rows) == 2
    assert any("not the usual 30" in note for note in found.problems.notes)


def test_the_run_says_what_else_it_is_evaluated_on(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *SUMS)
    lines = describe(composed(f"eval.on=[{path}]", "eval.samples=2"))
    said = f"Evaluation also on sums: 5 problems of {path}, 2 sampled responses each, right by the"
    assert any(line == f"{said} reward 'math'." for line in lines)


def test_the_rewards_are_opened_and_closed_with_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *SUMS)
    c = composed(f"eval.on=[{path}]", "rollout.max_completion_length=9")
    (own,) = c.benchmarks[0].rewards.values()
    assert any(own is reward for reward in c.every_reward)
    assert own.context.max_completion_length == 9


def test_problems_are_put_in_the_template_as_the_model_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *SUMS)
    (found,) = benchmark_sets(config(on=[str(path)]))
    tokenizer = make_policy().tokenizer
    prompts = found.prompts(tokenizer, "none")
    assert [p.text_or_messages for p in prompts] == [row["prompt"] for row in SUMS]
    assert prompts.longest == 4
    with pytest.raises(UserError, match=r"eval\.template=chat needs .* use eval\.template=plain"):
        found.prompts(tokenizer, "chat")


def test_a_model_that_cannot_read_them_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "words.jsonl", {"prompt": "one", "answer": "1"})
    with pytest.raises(UserError, match="the embedded model cannot read words of eval.on"):
        benchmark_sets(config("embedded", on=[str(path)]))


def test_an_unknown_template_is_refused_with_nothing_to_evaluate_on() -> None:
    config = RunConfig(output_dir="out", eval=EvalConfig(template="chatt"))
    with pytest.raises(UserError, match=r"eval\.template=chatt: .*'chat'\? Known: chat, plain"):
        benchmark_sets(config)
