"""SPEAR's composition for episodes with tools, at the size of a test."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rlkit
from rlkit.interfaces import Observation
from tests.compositions import composed
from tests.rollout.echo import ROWS, Echo, chat_policy
from tests.rollout.test_turns_in_training import SMALL, says_one


class Calling(Echo):
    """Reads a tool call in every turn with a 1, and none in the others."""

    def _one(self, episode: int, turn: str) -> Observation:
        seen = super()._one(episode, turn)
        if "1" not in turn:
            return replace(seen, counts={"calls": 0})
        call = {"type": "function", "function": {"name": "echo", "arguments": {}}}
        return replace(seen, said={**seen.said, "tool_calls": [call]}, counts={"calls": 1})


def test_its_parts_are_those_of_the_paper() -> None:
    c = composed("+experiment=spear_paper", "model.name=some/model", "task.path=rows.jsonl")
    filters = ["group_spread", "overlong", "void_turn", "repetitive", "unreadable"]
    assert [name for name, _ in c.parts.corrections] == [f"{name}_filter" for name in filters]
    assert list(c.rewards) == ["math", "tool_call", "call_format", "unreadable"]
    assert c.buffer.config.model_dump().items() >= {"min_calls": 1, "max_age": 5}.items()


@pytest.mark.slow
def test_it_trains_three_steps(tmp_path: Path) -> None:
    """The tool's reward fades, the weight of replay grows, and what is replayed called a tool."""
    policy = chat_policy()
    run = rlkit.train(
        "+experiment=spear_paper",
        f"environment={__name__}:Calling",
        *SMALL,
        *("train.steps=3", "train.minibatches=1", "buffer.size=1", "rollout.num_generations=4"),
        *("train.prompts_per_step=4", "correction.repetitive_filter.n=2"),
        model=policy.model,
        tokenizer=policy.tokenizer,
        dataset=ROWS,
        reward=["math", says_one, "tool_call", "call_format", "unreadable"],
        output_dir=tmp_path,
    )
    steps: list[dict[str, Any]] = [m for m in run.metrics if "turns/mean" in m]
    assert len(steps) == 3
    fades = [step["schedule/reward.tool_call.weight"] for step in steps]
    grows = [step["schedule/loss.replay_weight"] for step in steps]
    assert fades == pytest.approx([(1 + math.cos(math.pi * k / 200)) / 2 for k in range(3)])
    assert grows == pytest.approx([(1 - math.cos(math.pi * k / 300)) / 2 for k in range(3)])
    assert all({"reward/tool_call/mean", "advantage/baseline"} <= step.keys() for step in steps)
    assert min(step["buffer/fresh_fraction"] for step in steps) < 1, "successes were replayed"
    replayed = [row for k in (2, 3) for row in run.completions(k) if row["replayed"]]
    for row in replayed:
        turns = row.get("turns") or [{"role": "policy", "text": row["response"]}]
        said = [turn["text"] for turn in turns if turn["role"] == "policy"]
        assert any("1" in text for text in said), "it called the tool"
