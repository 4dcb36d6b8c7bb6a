"""Flat groups make room for stored ones: which are flat, which are stored, how they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers.zero_variance_filler import ZeroVarianceFiller, differs, group_score
from rlkit.batch import Group, Sample, Score
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.base import stored
from rlkit.testing.buffers import ids
from tests.buffers.test_replay import Cycle, check_frequencies, check_real_run, one
from tests.certain import LADDER

HALF = 0.5**0.5
"""The unbiased standard deviation of the rewards 0 and 1."""


def paid(made: int, rewards: Sequence[float]) -> Group:
    """A group with these rewards, numbered from `made`."""
    group = one(made, n=len(rewards))
    samples = [replace(s, reward=r) for s, r in zip(group.samples, rewards, strict=True)]
    return replace(group, samples=samples)


def trained(group: Group, *advantages: float) -> dict[int, Score]:
    """The scores of a group with these advantages."""
    return {
        s.sample_id: Score(logp=s.behavior_logp, entropy=1.0, advantage=a)
        for s, a in zip(group.samples, advantages, strict=True)
    }


def at(sample: Sample, step: int) -> Sample:
    """The response as if the weights of a step had sampled it."""
    return replace(sample, policy_version=torch.full_like(sample.policy_version, step))


def filled(*advantages: float, **fields: Any) -> ZeroVarianceFiller:
    """Groups 1, 11, ... with rewards 0 and 1 and advantages of this size."""
    buffer = build("buffer", "zero_variance_filler", **fields)
    assert isinstance(buffer, ZeroVarianceFiller)
    for i, size in enumerate(advantages):
        group = paid(10 * i + 1, [0, 1])
        buffer.add([group], 1)
        buffer.observe(trained(group, -size, size))
    return buffer


def firsts(groups: list[Group]) -> list[int]:
    return [group.samples[0].sample_id for group in groups]


def test_a_score_is_the_sum_of_advantages_times_the_unbiased_spread() -> None:
    """Rewards 0, 0, 3: the mean is 1, the variance (1 + 1 + 4) / 2 = 3."""
    assert group_score([-1.0, 0.5, 2.0], [0.0, 0.0, 3.0]) == pytest.approx(3.5 * 3**0.5)
    assert filled(1.0).scores == pytest.approx([2 * HALF])


def test_a_group_differs_if_one_reward_does() -> None:
    assert (
        differs(paid(1, [0, 0, 1])) and not differs(paid(1, [1, 1])) and not differs(paid(1, [0]))
    )


def test_flat_groups_are_replaced_in_place_as_far_as_the_store_goes() -> None:
    buffer = filled(1.0, 2.0)
    fresh = [paid(101, [1, 1]), paid(111, [0, 1]), paid(121, [0, 0]), paid(131, [0, 0])]
    built = buffer.build(fresh, 4, 2)
    assert built[1] is fresh[1] and built[3] is fresh[3]
    assert sorted(firsts([built[0], built[2]])) == [1, 11]
    assert [differs(group) for group in fresh] == [False, True, False, False], "fresh stays"
    assert sorted(firsts(buffer.stored)) == [1, 11], "a drawn group stays stored"


def test_nothing_is_replaced_without_a_store_or_without_a_flat_group() -> None:
    flat, good = [paid(101, [1, 1])], [paid(101, [0, 1])]
    assert filled().build(flat, 4, 2) == flat
    assert filled(1.0).build(good, 4, 2) == good


def test_groups_are_drawn_by_their_score() -> None:
    buffer, found = filled(1.0, 2.0, 5.0), Counter[Hashable]()
    for step in range(2, 4002):
        found[firsts(buffer.build([paid(101, [1, 1])], 1, step))[0]] += 1
    check_frequencies(found, {1: 1 / 8, 11: 2 / 8, 21: 5 / 8})


def test_two_draws_are_without_replacement() -> None:
    """P(a then b) = s_a / S * s_b / (S - s_a)."""
    buffer, found = filled(1.0, 2.0, 5.0), Counter[Hashable]()
    fresh = [paid(101, [1, 1]), paid(111, [1, 1])]
    for step in range(2, 4002):
        found[frozenset(firsts(buffer.build(fresh, 2, step)))] += 1
    sizes = {1: 1.0, 11: 2.0, 21: 5.0}
    shares: dict[Hashable, float] = {
        frozenset(pair): sum(
            sizes[a] / 8 * sizes[b] / (8 - sizes[a]) for a, b in (pair, pair[::-1])
        )
        for pair in ((1, 11), (1, 21), (11, 21))
    }
    check_frequencies(found, shares)


def test_the_best_scores_are_kept_and_of_equal_ones_the_older() -> None:
    buffer = filled(2.0, 1.0, 3.0, 2.0, 0.5, capacity=3)
    assert firsts(buffer.stored) == [21, 1, 31]
    buffer.add([paid(101, [0, 1])], 2)
    buffer.observe(trained(paid(101, [0, 1]), -2.0, 2.0))
    assert firsts(buffer.stored) == [21, 1, 31]
    assert buffer.scores == pytest.approx([6 * HALF, 4 * HALF, 4 * HALF])
    assert len(buffer) == 6
    assert buffer.stats() == {"groups": 3, "score_mean": pytest.approx(14 / 3 * HALF)}


def test_the_default_keeps_64_groups() -> None:
    assert len(filled(*[1.0] * 70).stored) == 64


def test_flat_groups_and_those_without_an_advantage_are_not_kept() -> None:
    buffer = filled(0.0)
    assert len(buffer) == 0
    flat = paid(1, [1, 1])
    buffer.add([flat], 2)
    buffer.observe(trained(flat, 1.0, 1.0))
    assert len(buffer) == 0


def test_a_group_whose_update_was_skipped_is_not_kept() -> None:
    """Nor one of which a part was skipped, and neither is held for the next step."""
    whole, part, none = (paid(4 * i, [0.0, 1.0]) for i in range(3))
    buffer = ZeroVarianceFiller()
    buffer.add([whole, part, none], 1)
    (first, score), _ = trained(part, -1.0, 1.0).items()
    buffer.observe({**trained(whole, -1.0, 1.0), first: score})
    assert ids(buffer.stored) == ids([whole])
    buffer.observe({**trained(part, -1.0, 1.0), **trained(none, -1.0, 1.0)})
    assert ids(buffer.stored) == ids([whole])


def test_a_drawn_group_keeps_its_first_score() -> None:
    buffer = filled(1.0)
    (group,) = buffer.build([paid(101, [1, 1])], 1, 2)
    buffer.add([paid(101, [1, 1])], 2)
    buffer.observe(trained(group, -9.0, 9.0))
    assert buffer.scores == pytest.approx([2 * HALF])


def test_every_place_is_generated() -> None:
    cycle = Cycle(build("buffer", "zero_variance_filler"), 6)
    for step in range(1, 4):
        fresh, built = cycle.step(step)
        assert len(fresh) == len(built) == 6
    assert cycle.buffer.fresh_share(6) == 6


@pytest.mark.parametrize("over_age", ["drop", "keep"])
def test_groups_over_age_are_forgotten_or_drawn_last(over_age: str) -> None:
    buffer = filled(9.0, max_age=2, over_age=over_age)
    young = replace(paid(11, [0, 1]), samples=[at(s, 2) for s in paid(11, [0, 1]).samples])
    buffer.add([young], 2)
    buffer.observe(trained(young, -1.0, 1.0))
    flat = [paid(101, [1, 1]), paid(111, [1, 1]), paid(121, [1, 1])]
    assert sorted(firsts(buffer.build(flat, 3, 3))[:2]) == [1, 11], "group 1 is 2 steps old"
    built = buffer.build(flat, 3, 4)
    assert firsts(built) == ([11, 1, 121] if over_age == "keep" else [11, 111, 121])
    buffer.add([], 3)
    assert firsts(buffer.stored) == ([1, 11] if over_age == "keep" else [11])
    assert buffer.scores == pytest.approx([18 * HALF, 2 * HALF][-len(buffer.stored) :])


def test_clearing_forgets_held_groups_too() -> None:
    buffer = filled(1.0)
    group = paid(101, [0, 1])
    buffer.add([group], 2)
    buffer.clear()
    buffer.observe(trained(group, -1.0, 1.0))
    assert len(buffer) == 0 and buffer.scores == []


def test_loading_forgets_held_groups() -> None:
    buffer, group = filled(1.0), paid(101, [0, 1])
    state = buffer.state_dict()
    buffer.add([group], 2)
    buffer.load_state_dict(state)
    buffer.observe(trained(group, -1.0, 1.0))
    assert firsts(buffer.stored) == [1]


def test_it_resumes() -> None:
    """Two groups of three are flat, and the first reward of the rest is 1 to 5."""

    def reward(sample: Sample) -> float:
        group, place = divmod(sample.sample_id - 1, 4)
        return float(1 + group % 5) if group % 3 == 0 and place == 0 else 0.0

    cycle = Cycle(build("buffer", "zero_variance_filler", capacity=12), 6, reward=reward)
    for step in range(1, 8):
        cycle.step(step)
    again = Cycle(build("buffer", "zero_variance_filler", capacity=12), 6, reward=reward)
    again.buffer.load_state_dict(stored(cycle.buffer.state_dict()))
    again.rollouts.made = cycle.rollouts.made
    assert again.buffer.scores == cycle.buffer.scores and len(again.buffer) == 48
    for step in range(8, 28):
        fresh, built = cycle.step(step)
        assert ids(built) == ids(again.step(step)[1])
        assert ids(built) != ids(fresh), "the comparison must see replay"
        assert cycle.buffer.stats() == again.buffer.stats()


def test_a_prompt_that_no_checkpoint_can_keep_is_an_error() -> None:
    group = paid(1, [0, 1])
    strange = replace(group.prompt, columns={"answer": torch.nn.ReLU()})
    with pytest.raises(UserError, match="answer"):
        filled().add([replace(group, prompt=strange)], 1)


def test_no_capacity_is_refused() -> None:
    with pytest.raises(UserError):
        build("buffer", "zero_variance_filler", capacity=0)


def test_it_trains(tmp_path: Path) -> None:
    """Of two responses none succeeds in the first group, one in the second and both in the others:
    all but one are flat."""
    args = ("train.prompts_per_step=16", "rollout.num_generations=2", LADDER)
    rows = check_real_run("buffer=zero_variance_filler", *args, cwd=tmp_path)
    assert [row["buffer/groups"] for row in rows] == [1, 2, 3]
    assert [row["buffer/fresh_fraction"] for row in rows] == [1, 15 / 16, 14 / 16]
    assert [row["buffer/age_max"] for row in rows] == [0, 1, 2]
    assert [row["rollouts/total"] for row in rows] == [32, 64, 96]
