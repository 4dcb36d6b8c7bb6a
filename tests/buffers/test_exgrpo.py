"""Replay of successes on half-solved prompts: buckets, entropies, retirement, start."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buffers.exgrpo import Exgrpo, ExgrpoConfig, bucket_weight
from rlkit.batch import Group, Score
from rlkit.registry import build
from rlkit.testing.buffers import FakePrompts, FakeRollouts, ids
from tests.buffers.test_replay import (
    Cycle,
    FewPrompts,
    check_frequencies,
    check_real_run,
    check_resumes,
    one,
)
from tests.certain import LADDER


def answered(prompts: FakePrompts, rollouts: FakeRollouts, successes: int, n: int = 8) -> Group:
    """A new prompt's n responses, so many of which succeed."""
    group = rollouts.group(prompts.take(1)[0], n, 1)
    samples = [replace(s, reward=float(i < successes)) for i, s in enumerate(group.samples)]
    return replace(group, samples=samples)


def filled(*successes: int, **fields: Any) -> tuple[Exgrpo, FakePrompts]:
    """A buffer that has started, with one prompt an entry, of 8 responses."""
    buffer = Exgrpo(ExgrpoConfig(**fields))
    prompts, rollouts = FakePrompts(num_generations=8), FakeRollouts()
    buffer.add([answered(prompts, rollouts, k) for k in successes], 1)
    buffer.started = True
    return buffer, prompts


def test_bucket_weights_of_paper_and_code() -> None:
    """K = 8: 4 of 8 against 1 of 8 is 1.07 in the paper and 90 in the code."""
    for law, ratio in (("share", math.exp(0.375**2 / 2)), ("count", math.exp(4.5))):
        ours = bucket_weight(4, 8, law) / bucket_weight(1, 8, law)  # type: ignore[arg-type]
        assert ours == pytest.approx(ratio)


@pytest.mark.parametrize("law", ["share", "count"])
def test_prompts_are_drawn_by_bucket_and_evenly_inside(law: Any) -> None:
    """Two prompts share the bucket of 4; one each has 5 and 6."""
    buffer, prompts = filled(4, 4, 5, 6, bucket_law=law, replay_fraction=0.25)
    found = Counter[Hashable]()
    for step in range(2, 3002):
        buffer.plan(4, step, prompts)
        (name,) = buffer.chosen
        found[name] += 1
    weights = [bucket_weight(k, 8, law) for k in (4, 5, 6)]
    shares = [weights[0] / 2, weights[0] / 2, weights[1], weights[2]]
    check_frequencies(found, {f"prompt-{i}": s / sum(weights) for i, s in enumerate(shares)})


def test_a_drawn_prompt_gets_one_response_less_and_its_surest_success() -> None:
    buffer, prompts = filled(3, 4)
    requests = buffer.plan(4, 2, prompts)
    assert [r.n for r in requests] == [7, 7, 8, 8]
    assert {r.prompt.prompt_id for r in requests[:2]} == {"prompt-0", "prompt-1"}
    assert [r.n for r in buffer.plan(4, 2, prompts)] == [8] * 4, "asked again: only new prompts"
    wanted = buffer.scores_wanted(2)
    assert len(wanted) == 7 and all(s.reward == 1 for s in wanted)
    surest = {wanted[1].sample_id, wanted[5].sample_id}
    buffer.observe(
        {
            s.sample_id: Score(
                logp=s.behavior_logp, entropy=0.5 + (s.sample_id not in surest), advantage=0.0
            )
            for s in wanted
        }
    )
    rollouts = FakeRollouts()
    rollouts.made = 100
    fresh = rollouts.groups(requests, 2)
    trained = buffer.build(fresh, 4, 2)
    assert [len(g.samples) for g in trained] == [8] * 4
    assert {g.samples[-1].sample_id for g in trained[:2]} == surest
    assert ids(trained)[2:] == ids(fresh)[2:] and [len(g.samples) for g in fresh] == [7, 7, 8, 8]


def test_only_half_solved_prompts_are_stored_and_solved_ones_leave_for_good() -> None:
    buffer, prompts = filled(0, 8, 3)
    assert list(buffer.stored) == ["prompt-2"] and len(buffer) == 3
    assert buffer.stats() == {"prompts": 1, "retired": 1, "started": 1}
    rollouts = FakeRollouts()
    group = rollouts.group(prompts.get("prompt-2"), 4, 2)
    right, wrong = (
        replace(group, samples=[replace(s, reward=r) for s in group.samples]) for r in (1.0, 0.0)
    )
    buffer.add([wrong], 2)
    assert buffer.successes == {"prompt-2": 0} and len(buffer) == 3, (
        "the latest count is its bucket"
    )
    buffer.add([right], 3)
    assert len(buffer) == 0 and list(buffer.retired) == ["prompt-1", "prompt-2"]
    half = replace(group, samples=[right.samples[0], wrong.samples[1]])
    buffer.add([half], 4)
    assert len(buffer) == 0


def test_equal_texts_are_stored_once_and_the_newest_stay() -> None:
    buffer = filled(3, per_prompt=4)[0]
    again = answered(FakePrompts(), FakeRollouts(), 3)
    buffer.add([again], 2)
    assert len(buffer) == 3
    rollouts = FakeRollouts()
    rollouts.made = 50
    buffer.add([answered(FakePrompts(), rollouts, 2)], 3)
    assert [s.sample_id for s in buffer.stored["prompt-0"]] == [2, 3, 51, 52]


def test_new_prompts_pass_over_retired_ones() -> None:
    buffer = Exgrpo(ExgrpoConfig())
    prompts = FewPrompts(3)
    buffer.retired = {"prompt-0": None}
    assert [r.prompt.prompt_id for r in buffer.plan(3, 1, prompts)] == [
        *("prompt-1", "prompt-2", "prompt-1")
    ]
    buffer.retired = dict.fromkeys(["prompt-0", "prompt-1", "prompt-2"])
    assert len(buffer.plan(3, 2, prompts)) == 3, "nothing else is left"


@pytest.mark.parametrize(("start_at", "starts"), [(0.49, True), (0.5, False)])
def test_replay_waits_for_enough_successes_and_stays_on(start_at: float, starts: bool) -> None:
    """Half of the made-up responses succeed."""
    cycle = Cycle(Exgrpo(ExgrpoConfig(start_at=start_at)), 4)
    cycle.step(1)
    assert cycle.buffer.started is starts
    trained = cycle.step(2)[1]
    assert sum(any(s.step == 1 for s in g.samples) for g in trained) == (2 if starts else 0)
    cycle.reward = lambda sample: 0.0
    cycle.step(3)
    assert cycle.buffer.started is starts


def test_prompts_over_age_are_dropped_or_drawn_last_with_their_young_successes() -> None:
    """Two successes each: prompt 0 of step 1, prompt 1 of steps 1 and 3, prompt 2 of step 3."""

    def chosen(count: int, **fields: Any) -> dict[str, list[int]]:
        buffer = Exgrpo(ExgrpoConfig(replay_fraction=count / 10, **fields))
        buffer.started = True
        for i, steps in enumerate([(1, 1), (1, 3), (3, 3)]):
            made = [one(10 * i + 2 * j + 1, step).samples[0] for j, step in enumerate(steps)]
            failure = replace(made[0], sample_id=10 * i + 9, reward=0.0)
            prompt = replace(one(1).prompt, prompt_id=f"prompt-{i}")
            buffer.add([Group(prompt=prompt, samples=[*made, failure])], 3)
        buffer.plan(10, 4, FewPrompts(3))
        return {name: [s.step for s in stored] for name, stored in sorted(buffer.chosen.items())}

    young = {"prompt-1": [3], "prompt-2": [3, 3]}
    assert chosen(3) == {"prompt-0": [1, 1], "prompt-1": [1, 3], "prompt-2": [3, 3]}
    assert chosen(3, max_age=2) == young
    assert chosen(2, max_age=2, over_age="keep") == young
    assert chosen(3, max_age=2, over_age="keep") == {"prompt-0": [1, 1], **young}


def test_it_resumes() -> None:
    def make() -> Any:
        return build("buffer", "exgrpo")

    check_resumes(make, Cycle(make(), 6, reward=lambda s: float(s.sample_id % 5 < 3)))


def test_it_trains(tmp_path: Path) -> None:
    """0, 1, 2 and 3 of 8 succeed in step 1; from then on 2 of 4 groups hold one of those."""
    rows = check_real_run("buffer=exgrpo", "buffer.start_at=0", LADDER, cwd=tmp_path)
    assert [row["buffer/started"] for row in rows] == [1, 1, 1]
    assert [row["buffer/fresh_fraction"] for row in rows] == [1, 30 / 32, 30 / 32]
    assert rows[1]["buffer/age_max"] == 1
