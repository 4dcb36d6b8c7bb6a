"""No replay: a step trains what it generated, in that order, and nothing is kept."""

from __future__ import annotations

from buffers.on_policy import OnPolicy
from rlkit.testing.buffers import FakePrompts, FakeRollouts


def test_on_policy_stores_nothing() -> None:
    buffer, prompts, rollouts = OnPolicy(), FakePrompts(), FakeRollouts()
    for step in (1, 2):
        fresh = rollouts.groups(buffer.plan(4, step, prompts), step)
        assert len(fresh) == 4
        assert buffer.build(fresh, 4, step) == fresh
        buffer.add(fresh, step)
        assert len(buffer) == 0 and buffer.state_dict() == {}
    buffer.clear()
    assert prompts.taken == 8, "each step has new prompts"


def test_a_step_trains_what_there_is() -> None:
    """Fewer or more groups than planned: none is made up, none is left out."""
    buffer, prompts, rollouts = OnPolicy(), FakePrompts(), FakeRollouts()
    fresh = rollouts.groups(buffer.plan(3, 1, prompts), 1)
    assert buffer.build(fresh, 5, 1) == fresh and buffer.build(fresh, 2, 1) == fresh
