"""What a step logs of episodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlkit.training.metrics import RolloutTally
from rlkit.training.turn_metrics import TurnTally
from tests.rollout.test_played import generation, played


def test_means_shares_and_rewards_by_turns() -> None:
    tally = TurnTally()
    counts = {"turns": 1, "calls": 0, "failed_calls": 0, "observation_tokens": 0, "moves": 3}
    tally.count(generation(played(counts=counts)), 1.0)
    many = {"turns": 3, "calls": 4, "failed_calls": 2, "observation_tokens": 9, "restarted": 1}
    cut = replace(generation(played(counts=many)), finish_reason="length")
    tally.count(cut, 0.25)
    tally.count(cut, None)
    found = tally.metrics()
    assert found["turns/mean"] == pytest.approx(7 / 3) and found["turns/max"] == 3
    assert found["tools/calls"] == pytest.approx(8 / 3)
    assert found["tools/restarted"] == pytest.approx(2 / 3)
    assert found["tools/failures"] == pytest.approx(4 / 3)
    assert found["turns/observation_tokens"] == 6
    assert found["turns/moves"] == 1, "an environment's own counts are logged too"
    assert found["turns/ended_length"] == pytest.approx(2 / 3)
    assert found["turns/ended_stop"] == pytest.approx(1 / 3)
    assert (found["turns/reward_1"], found["turns/reward_3"]) == (1.0, 0.25)
    assert found["turns/void"] == found["tools/timeouts"] == 0


def test_responses_of_one_turn_leave_nothing() -> None:
    tally = TurnTally()
    tally.count(generation(None), 1.0)
    assert tally.metrics() == {}


def test_the_mean_length_is_that_of_the_policy_s_own_tokens() -> None:
    tally = RolloutTally()
    tally.count(generation(played()), 1.0, {})
    tally.count(generation(None), 1.0, {})
    assert tally.metrics()["completions/mean_length"] == 2.5
