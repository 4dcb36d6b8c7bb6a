"""Preferences from files in TRL's formats, trained by DPO and by votes."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers.pairs import Pairs, PairsConfig
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.tasks.read import read_rows
from rlkit.testing.buffers import FakePrompts
from tests.cli import SMALL, metrics, run


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def opened(path: str, seed: int = 1, **settings: Any) -> Pairs:
    buffer = Pairs(PairsConfig.model_validate({"path": path, **settings}))
    buffer.open(RunContext(seed=seed, read_rows=read_rows))
    return buffer


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{n}", "chosen": f"{n}+", "rejected": f"{n}-", **columns} for n in range(count)
    ]


def test_a_pair_is_a_group_whose_chosen_response_has_the_higher_reward(tmp_path: Path) -> None:
    buffer, prompts = opened(written(tmp_path / "a.jsonl", rows(1))), FakePrompts()
    assert buffer.plan(4, 1, prompts) == [] and buffer.fresh_share(4) == 0
    (group,) = buffer.build([], 4, 1)
    chosen, rejected = group.samples
    assert (chosen.reward, rejected.reward) == (1.0, 0.0)
    assert torch.equal(chosen.response_ids, prompts.response("0+"))
    assert torch.equal(rejected.response_ids, prompts.response("0-"))
    assert chosen.sample_id != rejected.sample_id and group.prompt.text_or_messages == "0"


def test_votes_are_rewards(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rows(1, up=7, down=2))
    buffer = opened(path, votes=["up", "down"])
    buffer.plan(1, 1, FakePrompts())
    assert [s.reward for s in buffer.build([], 1, 1)[0].samples] == [7.0, 2.0]
    with pytest.raises(UserError, match="more votes than the chosen"):
        opened(path, votes=["down", "up"])
    with pytest.raises(UserError, match="must name two columns"):
        opened(path, votes=["up", "elsewhere"])


def test_preferences_that_are_too_long_are_refused_or_dropped(tmp_path: Path) -> None:
    short, long = rows(1)[0], {"prompt": "1", "chosen": "1" * 300, "rejected": "2"}
    path, prompts = written(tmp_path / "a.jsonl", [short, long]), FakePrompts()
    with pytest.raises(UserError, match=r"line 2: a response has 301 tokens.*overlong=drop"):
        opened(path).plan(2, 1, prompts)
    buffer = opened(path, overlong="drop")
    buffer.plan(2, 1, prompts)
    assert [g.prompt.text_or_messages for g in buffer.build([], 2, 1)] == ["0"]
    only = opened(written(tmp_path / "b.jsonl", [long]), overlong="drop")
    with pytest.raises(UserError, match=r"step 3: each of 1 preferences is longer"):
        only.plan(2, 3, prompts)


def test_asked_again_in_a_step_no_preference_is_passed_over(tmp_path: Path) -> None:
    """As `mix` does while groups of its other buffer are missing."""
    buffer, prompts = opened(written(tmp_path / "a.jsonl", rows(6))), FakePrompts()
    buffer.plan(2, 1, prompts)
    first = buffer.build([], 2, 1)
    assert buffer.plan(2, 1, prompts) == [] and buffer.build([], 2, 1) is first
    assert buffer.state_dict() == {"position": 2}


def test_each_preference_comes_once_an_epoch_and_a_resume_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rows(6))
    buffer, prompts = opened(path), FakePrompts()

    def step(owner: Pairs, number: int) -> list[str]:
        owner.plan(2, number, prompts)
        return [str(g.prompt.text_or_messages) for g in owner.build([], 2, number)]

    first = [step(buffer, n) for n in range(3)]
    assert sorted(chain(*first)) == [str(n) for n in range(6)]
    again = opened(path)
    again.load_state_dict(buffer.state_dict())
    assert [step(buffer, n) for n in range(3)] == [step(again, n) for n in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["online_dpo", "vdpo", "vipo"])
def test_dpo_learns_the_preferences(algorithm: str, tmp_path: Path) -> None:
    """Right sums are preferred to wrong ones; in a few steps their margin grows, nothing is
    generated."""
    path = written(
        tmp_path / "a.jsonl",
        [
            {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": f"{(a + b + 1) % 10}"}
            for a in range(5)
            for b in range(5)
        ],
    )
    small = [a for a in SMALL if not a.startswith("train.steps")]
    arguments = (f"algorithm={algorithm}", "buffer=pairs", f"buffer.path={path}", "train.steps=8")
    result = run(*small, *arguments, f"output_dir={tmp_path / 'out'}", cwd=tmp_path)
    assert result.status == 0, result.err
    steps = [r for r in metrics(tmp_path / "out") if "policy/margin" in r]
    assert {r["rollouts/total"] for r in steps} == {0}
    assert steps[-1]["policy/margin"] > steps[0]["policy/margin"]


@pytest.mark.slow
def test_the_votes_of_both_sides_set_the_target_of_a_real_step(tmp_path: Path) -> None:
    """7 to 2, 1 to 0 and 5 to 5 votes with a prior of 1: p = 8/11, 2/3 and 1/2. Before the first
    update the margin is 0, so VIPO's loss is the mean of ((2p - 1) / (2 beta))^2, beta = 0.1."""
    votes = [(7, 2), (1, 0), (5, 5)]
    given = [
        {"prompt": f"{n}+1=", "chosen": "1", "rejected": "2", "up": up, "down": down}
        for n, (up, down) in enumerate(votes)
    ]
    path = written(tmp_path / "a.jsonl", given)
    words = ("algorithm=vipo", "buffer=pairs", f"buffer.path={path}", "buffer.votes=[up,down]")
    sizes = ("train.prompts_per_step=3", "train.minibatches=1", "train.steps=1")
    result = run(*SMALL, *words, *sizes, "loss.equal_rewards=pair", "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    found = next(r["policy/loss"] for r in metrics(tmp_path / "out") if "policy/loss" in r)
    expected = ((5 / 11 / 0.2) ** 2 + (1 / 3 / 0.2) ** 2 + 0) / 3
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_reads_the_sampler_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rows(2))
    result = run(*SMALL, "algorithm=topr", "buffer=pairs", f"buffer.path={path}", cwd=tmp_path)
    assert result.status == 2 and "unknown policy" in result.err
    assert len(result.err.strip().splitlines()) == 1
