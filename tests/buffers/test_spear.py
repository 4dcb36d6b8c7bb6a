"""Good responses are stored up, handed out once when there are enough, and forgotten when old."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from buffers.spear import Spear, SpearConfig
from rlkit.batch import Score
from rlkit.registry import build
from tests.buffers.test_replay import Cycle, check_real_run, check_resumes
from tests.certain import HALF

# The contract cycle's rewards alternate and an advantage is the reward - 1/2: of four responses
# of a group the two with the reward 1 are good.


def test_only_responses_above_their_baseline_are_stored_with_their_group() -> None:
    cycle = Cycle(Spear(SpearConfig(size=100)), 5)
    fresh, trained = cycle.step(1)
    assert len(fresh) == len(trained) == 3, "2 of 5 places are kept for replay"
    stored = cycle.buffer.stored
    assert [g.prompt for g in stored] == [g.prompt for g in fresh]
    for group, source in zip(stored, fresh, strict=True):
        assert group.samples == [s for s in source.samples if s.reward == 1]
    assert len(cycle.buffer) == 6
    assert cycle.buffer.stats() == {"stored": 6.0, "ready": 0.0}


def test_replayed_responses_are_not_stored_again() -> None:
    cycle = Cycle(Spear(SpearConfig(size=1)), 5)
    for step in range(1, 6):
        cycle.step(step)
        names = [s.sample_id for g in cycle.buffer.stored for s in g.samples]
        assert len(set(names)) == len(names)


def test_all_are_handed_out_once_and_oldest_first_when_more_than_one_and_a_half_are_there() -> None:
    """size 4 hands out at 7 or more: after the second step, six groups two per step, then anew."""
    cycle = Cycle(Spear(SpearConfig(size=4)), 5)
    replayed = []
    for step in range(1, 6):
        fresh, trained = cycle.step(step)
        assert trained[:3] == fresh
        replayed.append([g.prompt.prompt_id for g in trained[3:]])
    assert replayed == [
        [],
        [],
        ["prompt-0", "prompt-1"],
        ["prompt-2", "prompt-3"],
        ["prompt-4", "prompt-5"],
    ]
    assert [g.prompt.prompt_id for g in cycle.buffer.ready][:1] == ["prompt-6"], "filled anew"


def test_exactly_one_and_a_half_is_not_enough() -> None:
    cycle = Cycle(Spear(SpearConfig(size=4)), 5)
    cycle.step(1)
    assert len(cycle.buffer) == 6 and not cycle.buffer.ready


def test_old_responses_are_forgotten_stored_or_ready() -> None:
    cycle = Cycle(Spear(SpearConfig(size=4, max_age=1)), 5)
    ages = []
    for step in range(1, 8):
        trained = cycle.step(step)[1]
        ages += [step - s.step for g in trained[3:] for s in g.samples]
        assert all(s.step == step for g in cycle.buffer.stored for s in g.samples)
    assert set(ages) <= {1}


def test_a_response_that_was_not_trained_is_not_stored() -> None:
    cycle = Cycle(Spear(), 5)
    fresh = cycle.rollouts.groups(cycle.buffer.plan(5, 1, cycle.prompts), 1)
    cycle.buffer.add(fresh, 1)
    cycle.buffer.observe({})
    assert len(cycle.buffer) == 0


def test_a_threshold_and_a_least_number_of_calls_are_asked_for() -> None:
    """Advantages -1/2 and 1/2: 1/2 is not above 1/2. Of three good responses one called no tool."""
    cycle = Cycle(Spear(SpearConfig(size=100, threshold=0.5)), 5)
    cycle.step(1)
    assert len(cycle.buffer) == 0
    buffer = Spear(SpearConfig(size=100, min_calls=1))
    cycle = Cycle(buffer, 5)
    fresh = cycle.rollouts.groups(buffer.plan(5, 1, cycle.prompts), 1)
    samples = fresh[0].samples
    for sample, calls in zip(samples, (0.0, 1.0, 2.0), strict=False):
        sample.extras["calls"] = calls
    buffer.add(fresh, 1)
    good = Score(logp=torch.zeros(1), entropy=0.0, advantage=0.5)
    buffer.observe({s.sample_id: good for group in fresh for s in group.samples})
    assert [s for g in buffer.stored for s in g.samples] == samples[1:3]


def test_it_resumes() -> None:
    check_resumes(lambda: Spear(SpearConfig(size=4)), Cycle(Spear(SpearConfig(size=4)), 5))


@pytest.mark.slow
def test_a_real_run_replays_its_successes(tmp_path: Path) -> None:
    """Half of the 16 responses of a step are good, and 8 are more than 1.5 times the size."""
    rows = check_real_run("algorithm=spear", "buffer.size=2", HALF, cwd=tmp_path)
    assert rows[0]["buffer/ready"] == 8 and rows[0]["buffer/fresh_fraction"] == 1
    assert rows[1]["buffer/fresh_fraction"] == 16 / 24 and rows[1]["buffer/age_max"] == 1
    assert build("advantage", "spear").min_group == 2
