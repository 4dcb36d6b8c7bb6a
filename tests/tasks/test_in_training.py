"""Prompts chosen by pass rates, inside the steps of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlkit.config.prompts import PromptsConfig
from rlkit.rewards.function import reward_class
from rlkit.rewards.judges import Judges
from rlkit.rewards.on_tasks import OnTasks
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.source import OnDemand
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import Choice, PromptStream
from rlkit.training.collect import Collector
from rlkit.training.state import Session
from rlkit.training.trainer import Trainer
from tests.sessions import config_of, make_session
from tests.tiny import make_policy

STEPS = 6
ROWS = [
    *({"prompt": f"{i}+1=", "answer": "1", "task": "ones"} for i in range(4)),
    *({"prompt": f"{i}+2=", "answer": "1", "task": "twos"} for i in range(3)),
]
CHOICES: dict[str, dict[str, Any]] = {
    "target": {"order": "target", "target": 0.3},
    "easy": {"order": "easy_first"},
    "solved": {"drop_solved": 1},
}


def even(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """1 for the problems with an even number in front, whatever is answered."""
    return [float(int(prompt[0]) % 2 == 0) for prompt in prompts]


def session_of(folder: Path, **settings: Any) -> Session:
    policy = make_policy()
    config = config_of(folder, steps=STEPS, prompts_per_step=2)
    checkpoint = config.checkpoint.model_copy(update={"every": 2, "keep": 9})
    four = config.eval.model_copy(update={"problems": 4})
    config = config.model_copy(update={"checkpoint": checkpoint, "eval": four})
    made = make_session(policy, folder, config=config)
    names = {"ones": "ones/even", "twos": "twos/even"}
    rewards = RewardSet(
        {
            name: OnTasks(reward_class(even)(), name, {task: {"answer"}})
            for task, name in names.items()
        }
    )
    judges = Judges("ones/even", names)
    choice = Choice(config=PromptsConfig(**settings), shares={"ones": 1, "twos": 1}, judges=judges)
    source = OnDemand(made.engine, greedy=False)
    advantage = made.parts.advantage
    changed = {
        "prompts": PromptStream(Prompts("train", ROWS, policy.tokenizer), 3, 2, 6, choice=choice),
        "collector": Collector(source, rewards, advantage, policy.tokenizer, tasks=names),
    }
    evaluator: Any = made.evaluator
    evaluator.rewards, evaluator.judges = rewards, judges
    evaluator.prompts = Prompts("eval", ROWS[2:6], policy.tokenizer)
    return make_session(policy, folder / "again", config=config, evaluator=evaluator, **changed)


def run(folder: Path, name: str) -> list[dict[str, Any]]:
    """The metrics of a run, without its times."""
    session = session_of(folder, **CHOICES[name])
    Trainer(session).run()
    return rows_of(folder / "again")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    varying = ("time/", "throughput/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(varying)} for row in rows]


def trained_on(folder: Path) -> list[list[str]]:
    """The prompts of each step."""
    found = []
    for step in range(1, STEPS + 1):
        lines = (folder / "completions" / f"step-{step}.jsonl").read_text().splitlines()
        found.append(list(dict.fromkeys(json.loads(line)["prompt"] for line in lines)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
def test_a_resumed_run_chooses_the_same_prompts(name: str, tmp_path: Path) -> None:
    """From each checkpoint on: the same prompts, and the same metrics of every step."""
    whole = run(tmp_path / "whole", name)
    checkpoints = tmp_path / "whole" / "again"
    for step in (2, 4):
        trainer = Trainer(session_of(tmp_path / f"from-{step}", **CHOICES[name]))
        trainer.state.load(checkpoints / f"checkpoint-{step}")
        trainer.run()
        found = rows_of(tmp_path / f"from-{step}" / "again")
        assert found == [row for row in whole if row["step"] > step]
        left = [f"step-{later}.jsonl" for later in range(step + 1, STEPS + 1)]
        for file in left:
            mine = tmp_path / f"from-{step}" / "again" / "completions" / file
            assert mine.read_bytes() == (checkpoints / "completions" / file).read_bytes()


def test_solved_problems_are_left_out_of_later_steps(tmp_path: Path) -> None:
    """0+1=, 2+1=, 0+2= and 2+2= are right at once and leave; 1+2= is the last of its task."""
    rows = run(tmp_path, "solved")
    steps = trained_on(tmp_path / "again")
    solved: set[str] = set()
    for prompts in steps:
        assert not solved & {*prompts}
        solved |= {prompt for prompt in prompts if int(prompt[0]) % 2 == 0}
    assert rows[-2]["prompts/left_out"] == len(solved) >= 3


def test_every_task_has_metrics_of_its_own(tmp_path: Path) -> None:
    rows = run(tmp_path, "target")
    both = {"reward/ones/mean", "reward/twos/mean"}
    step, evaluated = next(row for row in rows if both <= row.keys()), rows[0]
    by_task = [step["reward/ones/mean"], step["reward/twos/mean"]]
    assert step["reward/mean"] == pytest.approx(sum(by_task) / 2)
    assert step["reward/ones/even/mean"] == step["reward/ones/mean"]
    assert {"prompts/seen", "prompts/pass_rate", "prompts/ones_epochs"} <= step.keys()
    assert evaluated["eval/ones/pass@1"] == 0.5 and evaluated["eval/twos/pass@1"] == 0.5
    assert evaluated["eval/pass@1"] == 0.5 and evaluated["eval/ones/reward"] == 0.5
    assert evaluated["eval/ones/pass@1_error"] >= 0
