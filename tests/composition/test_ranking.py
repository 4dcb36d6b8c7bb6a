"""Which checkpoints are evaluated by ranking; that the figures are the run's own is in
tests/end_to_end/test_preferences.py."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.composition.ranking import ranked_run
from rlkit.errors import UserError
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


def test_a_run_in_stages_needs_a_reward() -> None:
    stages = "stages=[{steps: 1, overrides: ['algorithm=sft']}, {steps: 2}]"
    with pytest.raises(UserError, match=r"in stages without a reward.*reward=\[<name>\]"):
        ranked_run(raw_of(*SUMS), run_of(*OFFLINE, stages))
