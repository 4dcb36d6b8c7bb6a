"""Which checkpoints are evaluated by ranking; that the figures are the run's own is in
tests/end_to_end/test_preferences.py."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rlkit.composition import ranking
from rlkit.composition.ranking import rank, ranked_run
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.models.embedded import embedded_model_dir
from rlkit.registry import build
from tests.compositions import raw_of

SUMS = (
    "task=preference",
    "task.path=pkg://rlkit/tasks/revised_sums.jsonl",
    "task.eval_fraction=0.5",
)
OFFLINE = (*SUMS, "algorithm=online_dpo", "buffer=pairs", "loss.beta=0.3")


def run_of(*overrides: str) -> dict[str, Any]:
    return dict(raw_of(*overrides, "train.steps=3"))


def test_a_run_on_preferences_without_a_reward_is_ranked_with_its_own_loss() -> None:
    saved, raw = run_of(*OFFLINE), raw_of(*SUMS, "eval.problems=3")
    saved["task"].pop("overlong")  # a run of a version without this setting
    c = ranked_run(raw, saved)
    assert c is not None and c.parts.loss.config.beta == 0.3
    assert len(c.held_out_pairs) == 3 and not c.eval_rewards
    assert c.config.output_dir == "." and list(c.trackers) == ["console"]


def test_whatever_has_a_reward_is_evaluated_by_its_answers() -> None:
    saved, raw = run_of(*OFFLINE), raw_of(*SUMS)
    assert ranked_run(raw, None) is None
    assert ranked_run(raw_of(*SUMS, "reward=[math]"), saved) is None
    assert ranked_run(raw, run_of(*OFFLINE, "reward=[exact]")) is None
    assert ranked_run(raw_of(*SUMS, "task.eval_fraction=0.3"), saved) is None, "other pairs"
    assert ranked_run(raw_of(), run_of()) is None, "a task with a scorer of its own"


def test_a_teacher_is_loaded_to_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    c = ranked_run(raw_of(*SUMS), run_of(*OFFLINE))
    assert c is not None
    anchor = build("anchor", "teacher", path=EMBEDDED)
    c = replace(c, parts=replace(c.parts, anchor=anchor))
    found = SimpleNamespace(groups=[1, 2], run=lambda step: {"step": float(step)})
    monkeypatch.setattr(ranking, "load_tree", lambda path: {"factor": 1.0, "first": None})
    monkeypatch.setattr(ranking, "load_counters", lambda path: SimpleNamespace(step=3))
    monkeypatch.setattr(ranking, "held_out_pairs", lambda c, policy: ([found], []))
    said: list[str] = []
    assert rank(c, embedded_model_dir(0), said.append) == ({"step": 3.0}, 2)
    assert anchor.reference("teacher") is not None
    assert any(line.startswith("anchor.path=embedded, ") for line in said)


def test_a_run_in_stages_needs_a_reward() -> None:
    stages = "stages=[{steps: 1, overrides: ['algorithm=sft']}, {steps: 2}]"
    with pytest.raises(UserError, match=r"in stages without a reward.*reward=\[<name>\]"):
        ranked_run(raw_of(*SUMS), run_of(*OFFLINE, stages))
