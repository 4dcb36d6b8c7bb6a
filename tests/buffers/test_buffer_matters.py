"""The three parts of a batch: what fresh groups teach, what was hard, what went well lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers.buffer_matters import BufferMatters, is_informative, threshold
from rlkit.batch import Group, Request
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.base import stored
from rlkit.testing.buffers import FakePrompts, FakeRollouts, ids
from tests.buffers.test_replay import Cycle, check_frequencies, check_real_run
from tests.certain import LADDER

FIXED = {"c2": [0.25, 0.25], "c3": [0.5, 0.5]}
"""Thresholds that do not move."""


class Run:
    """A buffer, and groups of 8 of which so many succeed."""

    def __init__(self, **fields: Any) -> None:
        buffer = build("buffer", "buffer_matters", **fields)
        assert isinstance(buffer, BufferMatters)
        self.buffer = buffer
        self.prompts, self.rollouts = FakePrompts(num_generations=8), FakeRollouts()

    def group(self, successes: int, step: int = 1, name: str | None = None) -> Group:
        """Responses to a new prompt, or to a known one."""
        prompt = self.prompts.take(1)[0] if name is None else self.prompts.get(name)
        group = self.rollouts.group(prompt, 8, step)
        samples = [replace(s, reward=float(i < successes)) for i, s in enumerate(group.samples)]
        return replace(group, samples=samples)

    def add(self, *successes: int, step: int = 1) -> list[Group]:
        """Groups of new prompts after a step."""
        groups = [self.group(k, step) for k in successes]
        self.buffer.add(groups, step)
        return groups


def asked(requests: Sequence[Request]) -> list[int]:
    """The numbers of the prompts asked for."""
    return [int(request.prompt.prompt_id.removeprefix("prompt-")) for request in requests]


def test_thresholds_follow_the_mean_reward() -> None:
    found = [threshold((0.125, 0.5), mean) for mean in (0.0, 0.5, 1.0)]
    assert found == [0.125, 0.3125, 0.5]


def test_the_mean_reward_is_over_every_response_so_far() -> None:
    run = Run()
    assert run.buffer.mean_reward == 0
    run.add(0, 8, 8)
    run.add(4, step=2)
    assert run.buffer.stats()["mean_reward"] == pytest.approx(20 / 32)


@pytest.mark.parametrize(("successes", "taught"), [(0, 0), (1, 1), (4, 1), (7, 1), (8, 0)])
def test_fresh_groups_teach_where_some_succeed_and_some_fail(successes: int, taught: int) -> None:
    run = Run()
    fresh = [run.group(successes), run.group(4)]
    assert is_informative(fresh[0]) == taught
    assert run.buffer.build(fresh, 2, 1) == fresh[1 - taught :]


def test_a_single_small_reward_is_less_than_one_success() -> None:
    """1/G is a bound on the mean, not a count of successes."""
    run = Run()
    group = run.group(0)
    samples = [replace(group.samples[0], reward=0.9), *group.samples[1:]]
    assert not is_informative(replace(group, samples=samples))


def test_prompts_up_to_c1_are_hard_and_wait_in_order() -> None:
    run = Run(resample_fraction=0.5)
    run.add(1, 2, 0, 8, 0)
    assert list(run.buffer.hard) == ["prompt-0", "prompt-2", "prompt-4"]
    requests = run.buffer.plan(4, 2, run.prompts)
    assert asked(requests) == [0, 2, 5, 6] and [r.n for r in requests] == [8] * 4


def test_c1_follows_the_mean_reward_too() -> None:
    """Mean 5/8 and c1 from 0 to 0.4: hard up to 0.25."""
    run = Run(c1=[0.0, 0.4])
    run.add(2, 8)
    assert list(run.buffer.hard) == ["prompt-0"]
    run = Run(c1=[0.0, 0.2])
    run.add(2, 8)
    assert list(run.buffer.hard) == []


@pytest.mark.parametrize(
    ("batch", "fraction", "count"), [(7, 0.5, 3), (50, 0.58, 29), (3, 0.25, 0)]
)
def test_hard_prompts_take_a_bounded_share(batch: int, fraction: float, count: int) -> None:
    """0.58 * 50 is 29, though binary rounding makes it a little less."""
    run = Run(resample_fraction=fraction)
    run.add(*[0] * 30)
    found = asked(run.buffer.plan(batch, 2, run.prompts))
    assert found == [*range(count), *range(30, 30 + batch - count)]


def test_hard_prompts_return_every_m_steps_and_not_when_asked_again() -> None:
    run = Run(resample_every=3, resample_fraction=0.5)
    run.add(0, 0)
    hard = [sum(n < 2 for n in asked(run.buffer.plan(4, s, run.prompts))) for s in range(2, 8)]
    assert hard == [0, 2, 0, 0, 2, 0]
    assert min(asked(run.buffer.plan(4, 7, run.prompts))) > 2
    again = Run(resample_fraction=0.5)
    again.add(0, 0)
    assert asked(again.buffer.plan(4, 2, again.prompts)) == [0, 1, 2, 3]
    assert asked(again.buffer.plan(4, 2, again.prompts)) == [4, 5, 6, 7]
    trained = again.buffer.build([again.group(1, 2, "prompt-0"), again.group(4, 2)], 4, 2)
    assert len(trained) == 1, "the second plan does not make the hard prompt a new one"


@pytest.mark.parametrize(("successes", "taught"), [(0, 0), (1, 0), (2, 1), (7, 1), (8, 0)])
def test_a_hard_prompt_is_trained_once_it_is_above_c1(successes: int, taught: int) -> None:
    """1 of 8 is c1 itself; a fresh group of another prompt would be trained with it."""
    run = Run(resample_fraction=0.5)
    run.add(0)
    run.buffer.plan(2, 2, run.prompts)
    fresh = [run.group(successes, 2, "prompt-0"), run.group(1, 2)]
    assert run.buffer.build(fresh, 2, 2) == fresh[1 - taught :]
    run.buffer.add(fresh, 2)
    assert ("prompt-0" in run.buffer.hard) == (successes <= 1)


def test_the_next_step_no_longer_counts_a_prompt_as_re_sampled() -> None:
    run = Run(resample_fraction=0.5, resample_every=2)
    run.add(0)
    run.buffer.plan(2, 2, run.prompts)
    run.buffer.add([run.group(0, 2, "prompt-0")], 2)
    fresh = [run.group(0, 3), run.group(1, 3, "prompt-0")]
    assert run.buffer.build(fresh, 2, 3) == fresh[1:]


def test_a_prompt_that_stays_hard_goes_to_the_end_and_the_oldest_leave() -> None:
    run = Run(hard_capacity=3)
    run.add(0, 0, 0)
    run.buffer.add([run.group(1, 2, "prompt-0")], 2)
    assert list(run.buffer.hard) == ["prompt-1", "prompt-2", "prompt-0"]
    run.add(0, step=3)
    assert list(run.buffer.hard) == ["prompt-2", "prompt-0", "prompt-3"]


def test_good_groups_are_kept_by_the_thresholds_of_their_step() -> None:
    """Mean 1/2: c2 = 5/16 and c3 = 7/16 by default, so 3 of 8 is kept, 2 and 4 are not."""
    run = Run()
    kept = run.add(2, 3, 4, 7)[1]
    assert run.buffer.high == [kept]
    fixed = Run(**FIXED)
    groups = fixed.add(1, 2, 4, 5)
    assert fixed.buffer.high == groups[1:3], "the ends are included"
    assert len(fixed.buffer) == 16
    assert fixed.buffer.stats() == {"hard": 1, "groups": 2, "mean_reward": 12 / 32}


def test_good_groups_stay_for_the_steps_of_the_window() -> None:
    run = Run(**FIXED)
    for step in range(1, 6):
        run.add(2, step=step)
        steps = [group.samples[0].step for group in run.buffer.high]
        assert steps == list(range(max(1, step - 2), step + 1)), "three for the next step"


def test_good_groups_fill_what_is_missing_and_no_more() -> None:
    run = Run(**FIXED)
    run.add(2, 3, 4)
    fresh = [run.group(0, 2), run.group(4, 2), run.group(8, 2), run.group(8, 2)]
    trained = run.buffer.build(fresh, 3, 2)
    assert trained[0] is fresh[1] and len(trained) == 3
    assert {s.step for g in trained[1:] for s in g.samples} == {1}
    assert len({tuple(row) for row in ids(trained)}) == 3
    assert len(run.buffer.build(fresh, 9, 2)) == 4, "a short batch is trained"
    good = [run.group(4, 2), run.group(4, 2)]
    assert run.buffer.build(good, 2, 2) == good, "nothing is missing"


def test_good_groups_are_drawn_evenly() -> None:
    run = Run(**FIXED)
    run.add(2, 3, 4)
    fresh, found = [run.group(0, 2)], Counter[Hashable]()
    for step in range(2, 3002):
        found[run.buffer.build(fresh, 1, step)[0].samples[0].sample_id] += 1
    check_frequencies(found, {1: 1 / 3, 9: 1 / 3, 17: 1 / 3})


def test_good_groups_over_age_are_not_drawn_or_last() -> None:
    """The engine's weights lag: the group of step 2 was sampled by those of step 0."""
    for over_age, count in (("drop", 1), ("keep", 2)):
        run = Run(**FIXED, max_age=2, over_age=over_age)
        run.add(4)
        lagged = run.group(2, 2)
        samples = [replace(s, policy_version=s.policy_version * 0) for s in lagged.samples]
        run.buffer.add([replace(lagged, samples=samples)], 2)
        trained = run.buffer.build([run.group(0, 3)], 2, 3)
        assert [group.samples[0].step for group in trained] == [1, 2][:count]


def test_where_nothing_is_left_the_fresh_groups_are_trained() -> None:
    run = Run()
    fresh = [run.group(0), run.group(8)]
    assert run.buffer.build(fresh, 2, 1) == fresh


def test_clearing_forgets_all_three() -> None:
    run = Run(**FIXED, resample_fraction=0.5)
    run.add(0, 2, 4)
    run.buffer.plan(2, 2, run.prompts)
    run.buffer.clear()
    assert run.buffer.stats() == {"hard": 0, "groups": 0, "mean_reward": 0} and len(run.buffer) == 0
    fresh = [run.group(1, 2, "prompt-0"), run.group(0, 2)]
    assert run.buffer.build(fresh, 2, 2) == fresh[:1]
    run.buffer.add([run.group(0, 2, "prompt-0")], 2)
    assert 0 in asked(run.buffer.plan(2, 2, run.prompts)), "step numbers are forgotten too"


def test_loading_forgets_a_step_under_way() -> None:
    run = Run(resample_fraction=0.5)
    run.add(0)
    state = run.buffer.state_dict()
    run.buffer.plan(2, 2, run.prompts)
    run.buffer.load_state_dict(state)
    fresh = [run.group(1, 2, "prompt-0")]
    assert run.buffer.build([*fresh, run.group(0, 2)], 2, 2) == fresh
    assert asked(run.buffer.plan(2, 2, run.prompts))[0] == 0


def test_it_resumes() -> None:
    """A third of the groups fails, a third succeeds once in four, a third twice."""

    def make() -> Cycle:
        buffer = build("buffer", "buffer_matters", resample_every=2, resample_fraction=0.5)

        def reward(sample: Any) -> float:
            group, place = divmod(sample.sample_id - 1, 4)
            return float(place < group % 3)

        return Cycle(buffer, 6, reward=reward)

    cycle, again = make(), make()
    for step in range(1, 8):
        cycle.step(step)
    again.buffer.load_state_dict(stored(cycle.buffer.state_dict()))
    again.prompts.known = dict(cycle.prompts.known)
    again.prompts.taken, again.rollouts.made = cycle.prompts.taken, cycle.rollouts.made
    assert cycle.buffer.stats()["hard"] > 0 and len(cycle.buffer) > 0
    replayed = 0
    for step in range(8, 28):
        trained = cycle.step(step)[1]
        other = again.step(step)[1]
        assert ids(trained) == ids(other)
        assert [g.prompt.prompt_id for g in trained] == [g.prompt.prompt_id for g in other]
        assert cycle.buffer.stats() == again.buffer.stats()
        replayed += sum(group.samples[0].step < step for group in trained)
    assert replayed > 0, "the comparison must see replay"


def test_a_prompt_that_no_checkpoint_can_keep_is_an_error() -> None:
    run = Run()
    group = run.group(2)
    strange = replace(group.prompt, columns={"answer": torch.nn.ReLU()})
    with pytest.raises(UserError, match="answer"):
        run.buffer.add([replace(group, prompt=strange)], 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"c2": [0.5, 0.5], "c3": [0.4, 0.6]},
        {"c2": [0.1, 0.7]},
        {"c1": [0.1]},
        {"c1": [0.1, 1.1]},
        {"resample_every": 0},
        {"resample_fraction": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build("buffer", "buffer_matters", **fields)


def test_it_trains(tmp_path: Path) -> None:
    """0, 1, 2 and 3 of 8 succeed: two prompts are hard, and the third's group is kept. In step 2
    the first prompt, asked again, fails again; the kept group takes its place."""
    rows = check_real_run("buffer=buffer_matters", LADDER, cwd=tmp_path)
    assert [row["buffer/mean_reward"] for row in rows] == [6 / 32] * 3
    assert rows[0]["buffer/hard"] == 2 and rows[0]["buffer/groups"] == 1
    assert [row["buffer/fresh_fraction"] for row in rows] == [1, 0.75, 0.75]
    assert rows[1]["buffer/age_max"] == 1
    assert [row["rollouts/total"] for row in rows] == [32, 64, 96]
