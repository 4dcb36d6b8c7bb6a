"""What every buffer brings: new prompts for its fresh share, draws that repeat."""

from __future__ import annotations

from rlkit.batch import Group
from rlkit.interfaces import ReplayBuffer, RunContext
from rlkit.testing.buffers import FakePrompts


class Own(ReplayBuffer):
    """Only its base, replaying all but two groups."""

    def fresh_share(self, batch: int) -> int:
        return 2

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        raise AssertionError

    def add(self, fresh: list[Group], step: int) -> None:
        raise AssertionError

    def clear(self) -> None:
        raise AssertionError

    def __len__(self) -> int:
        return 0


def test_new_prompts_are_planned_for_the_fresh_share() -> None:
    prompts = FakePrompts()
    plan = Own().plan(6, 1, prompts)
    assert [r.n for r in plan] == [prompts.num_generations] * 2
    again = Own().plan(6, 1, prompts)
    assert len({r.prompt.prompt_id for r in (*plan, *again)}) == 4, "the data order goes on"
    assert not any(r.demonstrations or len(r.prefix) for r in plan)


def test_without_replay_of_its_own_everything_is_fresh() -> None:
    assert ReplayBuffer.fresh_share(Own(), 6) == 6
    assert Own().scores_wanted(1) == [] and Own().stats() == {}


def test_its_draws_repeat_by_seed_and_step() -> None:
    first, other = Own(), Own()
    for buffer in (first, other):
        buffer.open(RunContext(seed=5))
    draws = first.rng(3).random(4)
    first.rng(3)
    assert (other.rng(3).random(4) == draws).all()
    assert (first.rng(4).random(4) != draws).any()
    other.open(RunContext(seed=6))
    assert (other.rng(3).random(4) != draws).any()
