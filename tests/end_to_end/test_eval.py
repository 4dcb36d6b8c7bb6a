"""`rlkit eval` as a command: what it reads, says and leaves."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from rlkit.evaluation.records import read_answers
from tests.cli import SMALL, Result, command, run

SHORT = "rollout.max_completion_length=14"


@cache
def trained() -> Path:
    """A run of the embedded model; its checkpoint is a model folder like any other."""
    folder = Path(mkdtemp(prefix="rlkit-eval-")) / "run"
    settings = ("algorithm=grpo", "rollout.temperature=0.7", "eval.samples=2", "seed=3")
    assert run(*SMALL, *settings, f"output_dir={folder}", cwd=folder.parent).status == 0
    return folder


def rlkit_eval(*args: str, cwd: Path) -> Result:
    return command("rlkit.__main__", "eval", *args, cwd=cwd)


def evaluated(*args: str, cwd: Path) -> tuple[dict[str, float], str]:
    result = rlkit_eval(*args, cwd=cwd)
    assert result.status == 0, result.err
    return json.loads(result.out), result.err


def sums(path: Path, count: int) -> str:
    """A file of `count` sums with the answers as the embedded model writes them."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        numbers = [draw.randint(1, 9) for _ in range(5)]
        row = {"prompt": "+".join(map(str, numbers)) + "=", "answer": f"{sum(numbers):02d}"}
        rows += [row] if row not in rows else []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_is_evaluated_whole(tmp_path: Path) -> None:
    """Not a tenth of it, as where a run trains on the rest."""
    path = sums(tmp_path / "sums.jsonl", 40)
    given = (str(trained()), "task=jsonl", f"task.path={path}", "reward=[exact]", SHORT)
    figures, told = evaluated(*given, "--out", "here", "eval.samples=1", cwd=tmp_path)
    assert "40 of 40 problems" in told and "held-out" not in told
    rows = read_answers(tmp_path / "here" / "answers.parquet")
    assert len({row["prompt"] for row in rows}) == 40
    sampled = [row["right"] for row in rows if not row["greedy"]]
    assert figures["eval/pass@1"] == pytest.approx(sum(sampled) / 40)
    _, told = evaluated(*given, "--out", "few", "eval.problems=15", cwd=tmp_path)
    assert "15 of 40 problems" in told
    some = {row["prompt"] for row in read_answers(tmp_path / "few" / "answers.parquet")}
    assert len(some) == 15 and some < {row["prompt"] for row in rows}


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_as_its_run_was(tmp_path: Path) -> None:
    """The run's task, problems, samples and sampling, unless told otherwise."""
    figures, told = evaluated(str(trained()), "--out", "one", cwd=tmp_path)
    assert "8 of 7479 held-out problems" in told
    assert "2 sampled and one greedily, at temperature 0.7" in told
    assert "at most 14 tokens" in told and "reward 'arithmetic'" in told
    last = json.loads((trained() / "metrics.jsonl").read_text().splitlines()[-1])
    same = ("eval/greedy", "eval/greedy_error")
    assert {key: figures[key] for key in same} == {key: last[key] for key in same}
    about = json.loads((tmp_path / "one" / "results.json").read_text())
    assert about["metrics"] == figures and about["held_out"] and about["problems"] == 8
    assert about["config"]["rollout"]["temperature"] == 0.7
    other, told = evaluated(
        *(str(trained() / "checkpoint-2"), "eval.sampling.temperature=0.01", "eval.greedy=false"),
        *("--out=two", "eval.samples=4", "eval.k=[2,4]"),
        cwd=tmp_path,
    )
    assert "4 sampled, at temperature 0.01" in told
    assert {"eval/pass@1", "eval/pass@2", "eval/pass@4"} < other.keys()
    assert not any("greedy" in key for key in other)
    assert other["eval/pass@4"] == pytest.approx(figures["eval/greedy"]), "almost greedy"


def test_the_figures_are_json_and_a_table(tmp_path: Path) -> None:
    result = rlkit_eval("embedded", "eval.problems=16", "eval.samples=2", "eval.k=2", cwd=tmp_path)
    assert result.status == 0, result.err
    figures = json.loads(result.out)
    low, value, high = (figures[f"eval/pass@1{end}"] for end in ("_low", "", "_high"))
    assert low <= value <= high and figures["eval/pass@1_error"] > 0
    titles = ("pass@1", "pass@2", "greedy", "mean reward", "mean length", "cut off")
    lines = result.err.splitlines()
    for title in titles:
        assert any(line.startswith(title) and " to " in line for line in lines), title
    (shown,) = [line.split() for line in lines if line.startswith("pass@1")]
    assert shown[1:] == [f"{value:.3f}", f"{figures['eval/pass@1_error']:.3f}", *shown[3:]]
    (folder,) = (tmp_path / "evals").iterdir()
    assert folder.name.startswith("embedded-") and f"evals/{folder.name}" in result.err
    assert {path.name for path in folder.iterdir()} == {"answers.parquet", "results.json"}


@pytest.mark.slow
def test_a_reward_that_never_says_right_is_warned_of(tmp_path: Path) -> None:
    """The embedded model writes "11,16,25#27", which is no 27 to this reward."""
    path = sums(tmp_path / "sums.jsonl", 4)
    _, told = evaluated(
        *(str(trained()), "task=jsonl", f"task.path={path}", "reward=[exact]", "--out=x"),
        cwd=tmp_path,
    )
    assert "Warning: eval/pass@1 counts" in told and "the reward 'exact'" in told


@pytest.mark.slow
def test_responses_that_are_cut_off_are_warned_of(tmp_path: Path) -> None:
    given = ("embedded", "eval.problems=4", "--out=x")
    _, told = evaluated(*given, "eval.sampling.max_completion_length=3", cwd=tmp_path)
    assert "Warning: 100 % of the responses were cut off; raise eval.sampling." in told
    _, told = evaluated(*given, cwd=tmp_path)
    assert "were cut off" not in told


# arguments, what the line must say
WRONG = [
    ((), "say what to evaluate plain on: task=jsonl task.path=FILE"),
    (("task=jsonl",), "task.path is not set"),
    (("task=jsonl", "task.path=no.jsonl"), "no.jsonl"),
    (("task=arithmetic", "eval.k=[2,4]"), "eval.k=4 needs at least as many eval.samples"),
    (("task=arithmetic", "eval.k=0"), "eval.k=0 is not valid"),
    (("task=arithmetic", "eval.sampling.temperature=0"), "eval.sampling.temperature=0"),
    (("task=arithmetic", "eval.sampling.temp=1"), "'eval.sampling.temperature'"),
    (("task=arithmetic", "rollout=bare", "plugins=[./bare.py]", "eval.sampling.top_k=2"), "bare"),
]

BARE = """
from rlkit.registry import register
from rlkit.rollout.base import RolloutConfig, RolloutEngine

@register("rollout", "bare")
class Bare(RolloutEngine[RolloutConfig]):
    def start(self, policy, seed): raise AssertionError
    def sync(self, step): raise AssertionError
    def generate(self, call): raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_mistake_is_one_line_before_the_model_is_loaded(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """The folder `plain` holds no model."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "bare.py").write_text(BARE)
    result = rlkit_eval("plain", *arguments, cwd=tmp_path)
    assert result.status == 2 and result.out == ""
    assert len(result.err.splitlines()) == 1 and said in result.err, result.err
    assert not (tmp_path / "evals").exists()


@pytest.mark.slow
def test_a_runs_own_reward_from_a_file_is_found_again(tmp_path: Path) -> None:
    """From another folder, by the name it had in the run."""
    (tmp_path / "own.py").write_text(
        "def always(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    made = run(*SMALL, "reward=[./own.py:always]", "output_dir=run", "seed=1", cwd=tmp_path)
    assert made.status == 0, made.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    figures, told = evaluated("../run", "--out=x", cwd=elsewhere)
    assert figures["eval/pass@1"] == 1 and "the reward 'always'" in told
    figures, told = evaluated("../run", "--out=y", "reward=[exact]", cwd=elsewhere)
    assert figures["eval/pass@1"] < 1 and "the reward 'exact'" in told
