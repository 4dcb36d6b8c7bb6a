"""`eval.on` in training: named benchmarks and files beside the task, through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlkit.evaluation.records import read_answers
from tests.cli import SMALL, metrics, ranks, run, without_times
from tests.end_to_end.test_eval import sums

pytestmark = pytest.mark.slow

TRAINED = (
    *(argument for argument in SMALL if not argument.startswith(("train.steps", "eval.every"))),
    *("algorithm=grpo", "checkpoint.every=1", "train.lr_scheduler_type=constant"),
)


def on(folder: Path) -> tuple[str, ...]:
    """A file of sums and the sums themselves."""
    sums(folder / "sums.jsonl", 6)
    return (
        f"eval.on=['more={folder}/sums.jsonl',arithmetic]",
        *("eval.on_samples={arithmetic:2}", "eval.on_problems=5", "eval.k=1"),
    )


def train(folder: str, *overrides: str, cwd: Path) -> Path:
    result = run(*TRAINED, *overrides, f"output_dir={folder}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / folder


def evaluations(folder: Path) -> list[dict[str, float]]:
    return [row for row in metrics(folder) if "eval/pass@1" in row]


def test_a_run_is_also_evaluated_on_what_is_named(tmp_path: Path) -> None:
    given = ("train.steps=2", "eval.every=1", *on(tmp_path))
    result = run(*TRAINED, *given, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    said = f"Evaluation also on more: 5 problems of {tmp_path}/sums.jsonl, 1 sampled responses"
    assert said in result.out and "right by the reward 'math'" in result.out
    assert "arithmetic: 5 problems" in result.out
    rows = evaluations(tmp_path / "out")
    assert [row["step"] for row in rows] == [0, 1, 2]
    figures = ("pass@1", "pass@1_error", "greedy", "reward", "mean_length", "length_ratio")
    for name in ("", "more/", "arithmetic/"):
        assert {f"eval/{name}{figure}" for figure in figures} <= rows[-1].keys(), name
    for name, samples in (("more", 1), ("arithmetic", 2)):
        folder = tmp_path / "out" / "evaluations" / name
        assert {path.name for path in folder.iterdir()} == {f"step-{i}.parquet" for i in range(3)}
        answers = [row for row in read_answers(folder / "step-2.parquet") if not row["greedy"]]
        assert len(answers) == 5 * samples
        right = sum(row["right"] for row in answers) / len(answers)
        assert rows[-1][f"eval/{name}/pass@1"] == pytest.approx(right)
    plain = train("plain", "train.steps=2", "eval.every=1", cwd=tmp_path)
    others = ("eval/more/", "eval/arithmetic/")
    alone = [
        {key: value for key, value in row.items() if not key.startswith(others)}
        for row in without_times(metrics(tmp_path / "out"))
    ]
    assert alone == without_times(metrics(plain)), "the run's own figures are what they were"


def test_the_sampling_of_evaluations_does_not_change_training(tmp_path: Path) -> None:
    def trained(folder: Path) -> list[dict[str, float]]:
        return [row for row in without_times(metrics(folder)) if "policy/loss" in row]

    plain = train("plain", "train.steps=2", cwd=tmp_path)
    own = train(
        *("own", "train.steps=2", "eval.sampling={temperature:0.1,max_completion_length:3}"),
        *("eval.greedy=false", "eval.answers=0"),
        cwd=tmp_path,
    )
    assert trained(own) == trained(plain)
    assert evaluations(own)[0]["eval/mean_length"] == 3
    assert evaluations(own)[0]["eval/truncated"] == 1
    assert "eval/greedy" not in evaluations(own)[0] and not (own / "evaluations").exists()


def test_a_resumed_run_has_the_evaluations_of_a_whole_one(tmp_path: Path) -> None:
    """Killed between two checkpoints, with evaluations that a resumed run does again."""
    given = ("train.steps=4", "eval.every=1", "checkpoint.every=2", *on(tmp_path))
    whole = train("whole", *given, cwd=tmp_path)
    part = train("part", *given, cwd=tmp_path)
    shutil.rmtree(part / "checkpoint-4")
    (part / "report.html").unlink()
    train("part", *given, "resume=auto", cwd=tmp_path)
    assert without_times(metrics(whole)) == without_times(metrics(part))
    files = {path.relative_to(whole) for path in (whole / "evaluations").rglob("*.parquet")}
    assert len(files) == 3 * 5
    assert files == {path.relative_to(part) for path in (part / "evaluations").rglob("*.parquet")}
    for file in files:
        assert read_answers(whole / file) == read_answers(part / file), file


def test_several_processes_evaluate_as_one(tmp_path: Path) -> None:
    given = (*TRAINED, "train.steps=1", "model.device=cpu", *on(tmp_path))
    result = ranks("rlkit.run", *given, "output_dir=two", cwd=tmp_path)
    assert result.status == 0, result.err
    one = train("one", *given, cwd=tmp_path)

    def figures(folder: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if k[:5] == "eval/"} for row in evaluations(folder)]

    assert figures(tmp_path / "two")[0] == figures(one)[0]
    for name in ("", "more", "arithmetic"):
        first = Path("evaluations") / name / "step-0.parquet"
        assert read_answers(tmp_path / "two" / first) == read_answers(one / first)


# arguments, what the line must say
WRONG = [
    (("eval.on=[maht500]",), "no benchmark, file or task 'maht500' to evaluate on | 'math500'"),
    (("eval.on=[math500,math500]",), "eval.on names 'math500' twice"),
    (("eval.on=[math500]", "eval.data=./nothing"), "eval.data=nothing is no folder"),
    (("eval.on=[math500]", "eval.data=."), "has no file of math500"),
    (("eval.on=[no.jsonl]",), "no.jsonl"),
    (("eval.on=[bad.jsonl]",), "bad.jsonl has none of the columns prompt"),
    (("eval.on=[arithmetic]", "eval.template=chatt"), "no prompt template 'chatt' | 'chat'"),
    (
        ("eval.on=[arithmetic]", "eval.on_samples={arithmatic:2}"),
        "eval.on_samples names arithmatic, which eval.on does not | 'arithmetic'",
    ),
    (("eval.on_samples={a:0}",), "eval.on_samples"),
    (("eval.on=[words.jsonl]",), "the embedded model cannot read words of eval.on"),
]


@pytest.mark.parametrize("dry", ["true", "false"])
@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_mistake_is_one_line_before_anything_is_written(
    arguments: tuple[str, ...], said: str, dry: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "1", "answer": "1"}\n')
    (tmp_path / "words.jsonl").write_text(json.dumps({"prompt": "one", "answer": "1"}) + "\n")
    result = run(*arguments, f"dry_run={dry}", "output_dir=out", cwd=tmp_path)
    assert result.status == 2, result.out
    assert len(result.err.splitlines()) == 1 and result.err.startswith("rlkit: "), result.err
    for words in said.split(" | "):
        assert words in result.err, result.err
    assert not (tmp_path / "out").exists()
