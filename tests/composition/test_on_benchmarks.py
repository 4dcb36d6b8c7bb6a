"""What `rlkit eval --on` says and sets; tests/end_to_end/test_eval_on.py runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rlkit.composition.on_benchmarks import failed, for_answers, introduction, warnings
from rlkit.evaluation.results import Result
from rlkit.evaluation.store import Store
from tests.composition.test_benchmark_plan import plan


def result(**values: list[float]) -> Result:
    common: dict[str, Any] = {"title": "", "source": "", "flaws": "", "notes": ()}
    named = {name.replace("_at_", "@"): each for name, each in values.items()}
    return Result(name="aime24", settings={"reward": "math"}, values=named, **common)


def test_a_response_ends_where_its_template_ends_a_turn() -> None:
    qwen = plan("--on", "math500", "--template", "qwen2.5-math")
    assert for_answers({"stop": ["###"]}, qwen)["stop"] == ["###", "<|im_end|>"]
    assert for_answers({"mode": "async", "stop": None}, plan("--on", "math500")) == {
        "mode": "sync",
        "sync_every": 1,
        "oversample": 0.0,
        "stop": [],
    }


def test_what_makes_a_score_doubtful_is_said() -> None:
    assert warnings(result(pass_at_1=[0.0, 0.5], truncated=[0.0, 0.2])) == []
    (cut,) = warnings(result(pass_at_1=[0.0, 0.5], truncated=[0.0, 0.5]))
    assert "25 % of the responses were cut off; raise --max-tokens" in cut
    (none,) = warnings(result(pass_at_1=[0.0, 0.0], greedy=[0.0, 0.0], truncated=[0.0, 0.0]))
    assert "no response is right, by the reward 'math'" in none
    assert warnings(result(pass_at_1=[0.0], greedy=[1.0], truncated=[0.0])) == []


def test_rewards_that_failed_are_told() -> None:
    sound = result(pass_at_1=[0.5])
    assert failed(sound) is None
    line = failed(replace(sound, counts={"errors": 3}, responses=9))
    assert line and line.startswith("aime24: rewards failed over some of 9 responses (3 errors)")
    assert line.endswith("choose another --out")


def test_a_suite_says_where_it_is_from(tmp_path: Path) -> None:
    lines = introduction([], plan("--suite", "remix"), Store(tmp_path))
    assert "2507.06892" in lines[0] and "temperature=0.1" in lines[1] and str(tmp_path) in lines[2]
