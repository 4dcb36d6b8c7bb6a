"""Replay by the current policy's likelihood: what a score is, when it is taken, what it weighs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers.adaptive import Adaptive, AdaptiveConfig, group_scores, response_score
from rlkit.batch import Sample, Score
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.buffers import ids
from tests.buffers.test_replay import Cycle, check_frequencies, check_real_run, check_resumes, one

LOGP = {1: -1.0, 2: -3.0, 11: -2.0, 12: -1.5, 21: -1.25, 22: -1.25}
"""Three groups of two responses; shifted by the largest, -1, their means are -1, -0.75, -0.25."""
MEANS = {1: -1.0, 11: -0.75, 21: -0.25}


def said(values: Mapping[int, float]) -> dict[int, Score]:
    """The same log-prob on each of up to three tokens, by sample."""
    return {
        name: Score(logp=torch.full((1 + name % 3,), value), entropy=1.0, advantage=0.0)
        for name, value in values.items()
    }


def filled(**fields: Any) -> Adaptive:
    """The three groups above, scored in step 2."""
    buffer = Adaptive(AdaptiveConfig(refresh_every=2, temperature=0.5, **fields))
    buffer.add([one(1), one(11), one(21)], 1)
    assert [s.sample_id for s in buffer.scores_wanted(2)] == list(LOGP)
    buffer.observe(said(LOGP))
    return buffer


def answer(mask: list[bool]) -> Sample:
    """A response whose tokens had the log-prob -0.5."""
    return replace(
        one(1).samples[0],
        loss_mask=torch.tensor(mask, dtype=torch.bool),
        behavior_logp=torch.full((len(mask),), -0.5),
    )


@pytest.mark.parametrize(
    ("logp", "mask", "fields", "expected"),
    [
        ([-1.0, -3.0], [True, True], {}, -2.0),
        ([-1.0, -3.0], [True, False], {}, -1.0),
        ([-1.0, -3.0], [True, True], {"score": "log_ratio"}, -1.5),
        ([-20.0, -30.0], [True, True], {}, -12.0),
        ([-1.0, -40.0], [True, True], {"score_min": -50}, -20.5),
        ([9.0], [True], {"score": "log_ratio"}, 7.0),
        ([-1.0], [True], {"score_max": -2}, -2.0),
        ([], [], {}, 0.0),
    ],
)
def test_the_score_is_a_clipped_mean_over_the_own_tokens(
    logp: list[float], mask: list[bool], fields: dict[str, Any], expected: float
) -> None:
    score = Score(logp=torch.tensor(logp), entropy=1.0, advantage=0.0)
    found = response_score(answer(mask), score, AdaptiveConfig(**fields))
    assert found == pytest.approx(expected)


def test_a_group_is_the_mean_of_its_responses_below_the_best_of_all() -> None:
    buffer = filled()
    groups = [group.samples for group in buffer.groups]
    assert group_scores(groups, said(LOGP), buffer.config) == pytest.approx([-1, -0.75, -0.25])


def test_all_usable_responses_are_scored_in_the_steps_of_a_refresh_alone() -> None:
    buffer = build("buffer", "adaptive", refresh_every=3, max_age=2, replay_fraction=0.5)
    expected: list[int] = []
    for step in range(1, 8):
        expected = [s.sample_id for group in buffer.groups for s in group.samples]
        wanted = [sample.sample_id for sample in buffer.scores_wanted(step)]
        assert wanted == (expected if step in (3, 6) else [])
        buffer.observe(said(dict.fromkeys(wanted, -1.0)))
        buffer.add([one(10 * step + 1, step)], step)
    assert len(expected) == 4, "max_age leaves the groups of two steps"


@pytest.mark.parametrize("new", [False, True])
def test_groups_are_drawn_by_the_exponential_of_their_score(new: bool) -> None:
    """A group that is stored after the refresh weighs 1, as exp(0)."""
    buffer, found = filled(replay_fraction=0.2), Counter[Hashable]()
    weights = {name: math.exp(mean / 0.5) for name, mean in MEANS.items()}
    if new:
        buffer.add([one(31)], 2)
        weights[31] = 1.0
    for step in range(3, 4003):
        (group,) = buffer.build([], 5, step)
        found[group.samples[0].sample_id] += 1
    check_frequencies(found, {name: w / sum(weights.values()) for name, w in weights.items()})


def test_the_second_draw_follows_the_weights_that_are_left() -> None:
    """Without replacement: P(a then b) = w_a / W * w_b / (W - w_a)."""
    buffer, found = filled(replay_fraction=0.4), Counter[Hashable]()
    weights = {name: math.exp(mean / 0.5) for name, mean in MEANS.items()}
    total = sum(weights.values())
    for step in range(3, 4003):
        found[tuple(g.samples[0].sample_id for g in buffer.build([], 5, step))] += 1
    shares: dict[Hashable, float] = {
        (a, b): weights[a] / total * weights[b] / (total - weights[a])
        for a in weights
        for b in weights
        if a != b
    }
    check_frequencies(found, shares)


def test_weights_too_small_for_a_number_still_order_the_draw() -> None:
    """exp(-0.25 / 1e-4) is 0; the likeliest groups come first, as in the limit of temperature 0."""
    buffer = filled(replay_fraction=0.4)
    buffer.config = AdaptiveConfig(temperature=1e-4, replay_fraction=0.4)
    for step in range(3, 13):
        assert [g.samples[0].sample_id for g in buffer.build([], 5, step)] == [21, 11]


def test_scores_last_until_the_next_refresh_which_renews_them_all() -> None:
    buffer = filled()
    buffer.add([one(31)], 2)
    buffer.observe(said(LOGP | {31: -9.0, 32: -9.0, 1: -9.0}))
    assert buffer.scores == pytest.approx(MEANS), "what a step trained is not scored"
    assert buffer.scores_wanted(3) == []
    buffer.observe({})
    assert buffer.scores == pytest.approx(MEANS)
    wanted = [sample.sample_id for sample in buffer.scores_wanted(4)]
    assert wanted == [*LOGP, 31, 32]
    buffer.observe(said(LOGP | {31: 0.0, 32: -1.0}))
    renewed = {name: mean - 1 for name, mean in MEANS.items()}
    assert buffer.scores == pytest.approx(renewed | {31: -0.5})


def test_the_mean_weight_is_told() -> None:
    buffer = filled()
    buffer.add([one(31)], 2)
    expected = (math.exp(-2) + math.exp(-1.5) + math.exp(-0.5) + 1) / 4
    assert buffer.stats()["weight_mean"] == pytest.approx(expected)
    assert buffer.stats()["groups"] == 4


def test_the_oldest_leave_a_full_stock_and_their_scores_too() -> None:
    buffer = filled(capacity=3)
    buffer.add([one(31)], 2)
    assert buffer.rows.listed("first") == [11, 21, 31]
    assert list(buffer.scores) == [11, 21]


def test_the_batch_is_fresh_groups_and_whole_stored_ones_with_their_uses_counted() -> None:
    cycle = Cycle(build("buffer", "adaptive", replay_fraction=0.5), 6)
    for step in range(1, 9):
        fresh, trained = cycle.step(step)
        assert trained[:3] == fresh and len(trained) == (3 if step == 1 else 6)
        replayed = {group.samples[0].sample_id for group in trained[3:]}
        rows = cycle.buffer.rows
        used = [name in replayed for name in rows["first"]]
        assert sum(used) == len(replayed) == len(trained) - 3
        assert all(rows["uses"][used] >= 2) and all(rows["last_used"][used] == step)


def test_groups_over_age_are_forgotten() -> None:
    cycle = Cycle(build("buffer", "adaptive", replay_fraction=0.8, max_age=2), 20)
    for step in range(1, 8):
        trained = cycle.step(step)[1]
        assert {step - g.samples[0].step for g in trained} == set(range(min(step, 3)))


def test_groups_over_age_come_last_under_keep() -> None:
    """The likeliest group is too old, and still the last to be drawn."""
    buffer = filled(replay_fraction=0.4, max_age=1, over_age="keep")
    buffer.add([one(31, step=2)], 2)
    buffer.config = buffer.config.model_copy(update={"temperature": 1e-4})
    buffer.rows["score"][3] = -9.0
    assert [g.samples[0].sample_id for g in buffer.build([], 5, 3)] == [31, 21]


def test_clearing_forgets_scores_and_a_refresh_under_way() -> None:
    buffer = filled()
    buffer.scores_wanted(4)
    buffer.clear()
    buffer.observe({})
    assert buffer.scores == {} and len(buffer) == 0


def test_it_resumes_between_two_refreshes() -> None:
    def make() -> Any:
        return build("buffer", "adaptive", refresh_every=4, capacity=40)

    check_resumes(make, Cycle(make(), 6), start=7)


def test_a_resumed_buffer_has_the_scores() -> None:
    buffer = filled()
    buffer.add([one(31)], 2)
    again = Adaptive(buffer.config)
    again.load_state_dict(buffer.state_dict())
    assert again.scores == buffer.scores
    assert ids(again.build([], 5, 3)) == ids(buffer.build([], 5, 3))


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 0}, {"refresh_every": 0}, {"score": "q"}, {"score_min": 2, "score_max": 1}],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build("buffer", "adaptive", **fields)


def test_it_trains(tmp_path: Path) -> None:
    rows = check_real_run("buffer=adaptive", "buffer.refresh_every=2", cwd=tmp_path)
    assert rows[0]["buffer/fresh_fraction"] == 1
    assert rows[1]["buffer/fresh_fraction"] == pytest.approx(0.5)
    assert 0 < rows[1]["buffer/weight_mean"] < 1
