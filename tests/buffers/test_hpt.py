"""HPT's switch, group by group and in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from buffers.hpt import Hpt, HptConfig, switched
from rlkit.batch import Group, Sample
from rlkit.testing.buffers import FakePrompts
from tests.buffers.test_replay import check_real_run


def answered(rewards: list[float], demonstrations: int = 1) -> Group:
    """A group of own responses with these rewards, and demonstrations."""
    prompt = FakePrompts().take(1)[0]
    own = [response(i, reward, "policy") for i, reward in enumerate(rewards)]
    shown = [response(-1 - i, 1.0, "expert") for i in range(demonstrations)]
    return Group(prompt=prompt, samples=[*own, *shown])


def response(number: int, reward: float, source: str) -> Sample:
    return Sample(
        sample_id=number,
        prompt_id="prompt-0",
        response_ids=torch.tensor([5]),
        loss_mask=torch.tensor([True]),
        behavior_logp=torch.zeros(1),
        policy_version=torch.ones(1, dtype=torch.int32),
        reward=reward,
        rewards={},
        finish_reason="stop",
        step=1,
        source=source,
    )


@pytest.mark.parametrize(
    ("rewards", "gate", "imitated"),
    [
        ([0.0, 0.0, 0.0], 0, True),
        ([0.0, 1.0, 0.0], 0, False),
        ([0.0, 1.0, 0.0], 1, True),
        ([1.0, 1.0, 0.0], 1, False),
        ([0.9, 0.99, 0.0], 0, True),
        ([2.0, 0.0, 0.0], 0, False),
    ],
)
def test_a_group_that_solved_at_most_the_gate_becomes_its_demonstration(
    rewards: list[float], gate: int, imitated: bool
) -> None:
    group = answered(rewards)
    kept = switched(group, gate, 1.0).samples
    assert kept == (group.samples[3:] if imitated else group.samples[:3])


def test_what_counts_as_solved_is_a_setting() -> None:
    assert len(switched(answered([0.5, 0.2]), 0, 0.5).samples) == 2
    assert len(switched(answered([0.4, 0.2]), 0, 0.5).samples) == 1


def test_without_a_demonstration_a_group_stays() -> None:
    group = answered([0.0, 0.0], demonstrations=0)
    assert switched(group, 0, 1.0).samples == group.samples


def test_all_responses_are_generated_beside_the_demonstration() -> None:
    buffer, prompts = Hpt(), FakePrompts()
    requests = buffer.plan(2, 1, prompts)
    assert {r.n for r in requests} == {prompts.num_generations}
    assert [len(r.demonstrations) for r in requests] == [1, 1]
    built = buffer.build([answered([0.0]), answered([1.0])], 2, 1)
    assert [len(g.samples) for g in built] == [1, 1]
    assert buffer.stats() == {"imitated": 0.5}
    assert HptConfig().gate == 0


def test_hpt_imitates_what_it_does_not_solve(tmp_path: Path) -> None:
    rows = check_real_run("algorithm=hpt", "rollout.num_generations=4", cwd=tmp_path)
    trained = [row for row in rows if "buffer/imitated" in row]
    assert all(0 <= row["buffer/imitated"] <= 1 for row in trained)
    assert any(row["buffer/imitated"] > 0 for row in trained)
