"""Replay of prompts: which are stored, in which order they return, how often, after which rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buffers.prompt_replay import PromptReplay
from rlkit.batch import Group, Request
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.base import stored
from rlkit.testing.buffers import FakePrompts, FakeRollouts
from tests.buffers.test_replay import Cycle, FewPrompts, check_real_run


def answered(prompts: FakePrompts, name: str, successes: int, n: int = 8) -> Group:
    """n responses to a known prompt, so many of which succeed."""
    group = FakeRollouts().group(prompts.get(name), n, 1)
    samples = [replace(s, reward=float(i < successes)) for i, s in enumerate(group.samples)]
    return replace(group, samples=samples)


def filled(*successes: int, **fields: Any) -> tuple[PromptReplay, FakePrompts]:
    """A buffer after a step 1 whose prompts 0, 1, ... had so many successes of 8."""
    buffer = build("buffer", "prompt_replay", **fields)
    assert isinstance(buffer, PromptReplay)
    prompts = FakePrompts(num_generations=8)
    prompts.take(len(successes))
    buffer.add([answered(prompts, f"prompt-{i}", k) for i, k in enumerate(successes)], 1)
    return buffer, prompts


def asked(requests: list[Request]) -> list[int]:
    """The numbers of the prompts asked for."""
    return [int(request.prompt.prompt_id.removeprefix("prompt-")) for request in requests]


def test_prompts_inside_the_window_are_stored_its_ends_included() -> None:
    buffer = filled(0, 1, 2, 6, 7, 8)[0]
    assert buffer.pass_rate == {"prompt-2": 0.25, "prompt-3": 0.75}
    buffer = filled(0, 1, 2, 6, 7, 8, low=0, high=0.125)[0]
    assert buffer.pass_rate == {"prompt-0": 0.0, "prompt-1": 0.125}
    assert len(buffer) == 0, "no response is stored"


def test_a_success_is_a_reward_from_success_at_on() -> None:
    assert filled(4, success_at=0.0)[0].pass_rate == {}, "every response succeeds"
    assert filled(4, success_at=1.0)[0].pass_rate == {"prompt-0": 0.5}


def test_the_closest_to_one_half_come_first_then_new_prompts() -> None:
    """Rates 2/8, 5/8, 4/8, 3/8: distances 2, 1, 0, 1; of equal ones the first stored."""
    buffer, prompts = filled(2, 5, 4, 3, cooldown=1, reuse_fraction=0.75)
    requests = buffer.plan(4, 2, prompts)
    assert asked(requests) == [2, 1, 3, 4] and [r.n for r in requests] == [8] * 4


def test_of_equal_priorities_the_longest_rested_comes_first() -> None:
    buffer, prompts = filled(4, 4, cooldown=1, reuse_fraction=0.25)
    buffer.add([answered(prompts, "prompt-0", 4)], 2)
    assert asked(buffer.plan(4, 3, prompts))[0] == 1


@pytest.mark.parametrize(("batch", "fraction", "count"), [(7, 0.5, 3), (50, 0.58, 29), (1, 0.5, 0)])
def test_the_reused_share_is_rounded_down(batch: int, fraction: float, count: int) -> None:
    """0.58 * 50 is 29, though binary rounding makes it a little less."""
    buffer, prompts = filled(*[4] * 30, cooldown=1, reuse_fraction=fraction)
    found = asked(buffer.plan(batch, 2, prompts))
    assert found == [*range(count), *range(30, 30 + batch - count)]


def test_a_prompt_rests_after_it_was_trained() -> None:
    buffer, prompts = filled(4, cooldown=3)
    first = [asked(buffer.plan(2, step, prompts))[0] for step in (2, 3, 4)]
    assert first[:2] != [0, 0] and 0 not in first[:2] and first[2] == 0
    buffer.add([answered(prompts, "prompt-0", 4)], 4)
    first = [asked(buffer.plan(2, step, prompts))[0] for step in (5, 6, 7)]
    assert 0 not in first[:2] and first[2] == 0


def test_asked_again_in_a_step_the_plan_has_only_new_prompts() -> None:
    buffer, prompts = filled(4, 4, cooldown=1)
    assert asked(buffer.plan(4, 2, prompts)) == [0, 1, 2, 3]
    assert asked(buffer.plan(4, 2, prompts)) == [4, 5, 6, 7]


def test_a_worn_out_prompt_leaves_for_good() -> None:
    buffer, prompts = filled(4, cooldown=1, max_reuse=2)
    for step in (2, 3):
        assert asked(buffer.plan(2, step, prompts))[0] == 0
        buffer.add([answered(prompts, "prompt-0", 4)], step)
    assert buffer.pass_rate == {} and buffer.stats() == {"prompts": 0, "reuses": 2}
    buffer.add([answered(prompts, "prompt-0", 4)], 4)
    assert buffer.pass_rate == {} and asked(buffer.plan(2, 5, prompts))[0] != 0


def test_only_chosen_prompts_count_as_reused() -> None:
    """A visit by the data order is none, nor is a choice whose responses got no reward."""
    buffer, prompts = filled(4, 4, cooldown=1)
    buffer.plan(4, 2, prompts)
    buffer.add([answered(prompts, "prompt-1", 4)], 2)
    assert buffer.reuses == {"prompt-1": 1}
    buffer.add([answered(prompts, "prompt-0", 4)], 3)
    assert buffer.reuses == {"prompt-1": 1}, "the choice of step 2 is over"


def test_a_new_pass_rate_replaces_the_old_one_or_ends_the_stay() -> None:
    buffer, prompts = filled(4, 4)
    buffer.add([answered(prompts, "prompt-0", 6), answered(prompts, "prompt-1", 8)], 2)
    assert buffer.pass_rate == {"prompt-0": 0.75} and buffer.last_used == {"prompt-0": 2}


def test_the_fresh_groups_are_trained_as_they_are() -> None:
    cycle = Cycle(build("buffer", "prompt_replay", cooldown=1), 4)
    for step in range(1, 6):
        fresh, trained = cycle.step(step)
        assert trained == fresh and len(fresh) == 4
        assert all(s.step == step for g in trained for s in g.samples)
    assert cycle.buffer.fresh_share(4) == 4


def test_clearing_forgets_reuses_and_choices() -> None:
    buffer, prompts = filled(4, cooldown=1)
    buffer.plan(2, 2, prompts)
    buffer.add([answered(prompts, "prompt-0", 4)], 2)
    buffer.plan(2, 3, prompts)
    buffer.clear()
    buffer.add([answered(prompts, "prompt-0", 4)], 2)
    assert buffer.stats() == {"prompts": 1, "reuses": 0}
    assert asked(buffer.plan(2, 3, prompts))[0] == 0, "step numbers are forgotten too"


def test_loading_forgets_a_step_under_way() -> None:
    buffer, prompts = filled(4, cooldown=1)
    state = buffer.state_dict()
    buffer.plan(2, 2, prompts)
    buffer.load_state_dict(state)
    buffer.add([answered(prompts, "prompt-0", 4)], 1)
    assert buffer.reuses == {}
    assert asked(buffer.plan(2, 2, prompts))[0] == 0


def test_it_resumes() -> None:
    """Prompts come round, so that reuses, rests and ends of stays all matter."""

    def make(prompts: FakePrompts) -> Cycle:
        buffer = build("buffer", "prompt_replay", cooldown=3, max_reuse=3)
        return Cycle(buffer, 4, prompts, reward=lambda s: float(s.sample_id * 7 % 11 < 5))

    cycle = make(FewPrompts(23))
    for step in range(1, 8):
        cycle.step(step)
    again = make(FewPrompts(23))
    again.buffer.load_state_dict(stored(cycle.buffer.state_dict()))
    again.prompts.taken, again.rollouts.made = cycle.prompts.taken, cycle.rollouts.made
    before = cycle.buffer.stats()["reuses"]
    for step in range(8, 28):
        names = [group.prompt.prompt_id for group in cycle.step(step)[1]]
        assert names == [group.prompt.prompt_id for group in again.step(step)[1]]
        assert cycle.buffer.stats() == again.buffer.stats()
    assert 0 < before < cycle.buffer.stats()["reuses"]


@pytest.mark.parametrize(
    "fields", [{"low": 0.6, "high": 0.5}, {"reuse_fraction": 1}, {"cooldown": 0}, {"max_reuse": 0}]
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build("buffer", "prompt_replay", **fields)


def test_it_trains(tmp_path: Path) -> None:
    args = ("buffer.cooldown=1", "buffer.low=0", "buffer.high=1")
    rows = check_real_run("buffer=prompt_replay", *args, cwd=tmp_path)
    assert [row["buffer/reuses"] for row in rows] == [0, 2, 4]
    assert all(row["buffer/fresh_fraction"] == 1 and row["buffer/size"] == 0 for row in rows)
