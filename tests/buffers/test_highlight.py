"""The window and the best group of each prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from buffers import shards
from buffers.highlight import Highlight, HighlightConfig, best_of_each, number_of
from rlkit.batch import Group
from rlkit.interfaces import RunContext
from tests.buffers.test_replay import one


def test_the_best_has_the_highest_mean_reward_and_is_the_newest_of_equals() -> None:
    prompts, rewards = np.array([7, -2, 7, 7, -2]), np.array([0.5, 1.0, 0.25, 0.5, 0.75])
    assert best_of_each(prompts, rewards).tolist() == [False, True, False, True, False]
    assert best_of_each(prompts[:0], rewards[:0]).tolist() == []


def test_the_number_of_a_prompt_is_the_same_in_every_process() -> None:
    assert number_of("a") == number_of("a") != number_of("b")
    assert number_of("") == -1970711489451281740  # the first 8 bytes of blake2b(digest_size=8)


def group(made: int, step: int, prompt: str, reward: float) -> Group:
    found = one(made, step)
    samples = [replace(s, prompt_id=prompt, reward=reward) for s in found.samples]
    return replace(found, prompt=replace(found.prompt, prompt_id=prompt), samples=samples)


def filled(**fields: Any) -> Highlight:
    """Prompt a: reward 1 at step 1, then 0; prompt b: 0, 0.5, 0. Window 1: step 3 is recent."""
    buffer = Highlight(HighlightConfig(window=1, **fields))
    for step, (a, b) in enumerate([(1.0, 0.0), (0.0, 0.5), (0.0, 0.0)], start=1):
        buffer.add([group(10 * step, step, "a", a), group(10 * step + 5, step, "b", b)], step)
    return buffer


def steps(groups: list[Group]) -> list[tuple[str, int]]:
    return sorted((g.prompt.prompt_id, g.samples[0].step) for g in groups)


def test_what_is_neither_recent_nor_the_best_is_forgotten() -> None:
    assert steps(filled().groups) == [("a", 1), ("a", 3), ("b", 2), ("b", 3)]


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(1.0, [("a", 1), ("b", 2)]), (0.0, [("a", 3), ("b", 3)])],
)
def test_the_share_of_the_best(fraction: float, expected: list[tuple[str, int]]) -> None:
    buffer = filled(best_fraction=fraction, replay_fraction=0.5)
    assert steps(buffer.build([], 4, 4)) == expected


def test_half_and_half_has_one_of_each() -> None:
    drawn = steps(filled(best_fraction=0.5, replay_fraction=0.5).build([], 4, 4))
    assert sum(step == 3 for _, step in drawn) == 1


def test_a_group_is_drawn_once_in_a_step() -> None:
    """Window 9: the best groups are recent too."""
    buffer = Highlight(HighlightConfig(window=9, best_fraction=0.5, replay_fraction=0.8))
    buffer.add([group(1, 1, "a", 1.0), group(5, 1, "b", 1.0)], 1)
    assert steps(buffer.build([], 10, 2)) == [("a", 1), ("b", 1)]


def test_a_resumed_buffer_draws_the_same() -> None:
    buffer, again = filled(), Highlight(HighlightConfig(window=1))
    again.load_state_dict(buffer.state_dict())
    assert steps(again.build([], 4, 4)) == steps(buffer.build([], 4, 4))


def test_beyond_the_capacity_the_best_stay_longest() -> None:
    """Four groups would stay; the two that are only recent leave first."""
    assert steps(filled(capacity=2).groups) == [("a", 1), ("b", 2)]


def test_a_best_group_that_is_too_old_makes_room_for_a_younger_one() -> None:
    """At step 4 weights more than 1 step back are not allowed: of each prompt step 3 is left."""
    assert steps(filled(max_age=1, over_age="drop").groups) == [("a", 3), ("b", 3)]


def test_a_process_that_does_not_write_needs_no_file_to_know_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one writes the shards, and may not have come to it yet."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    buffer = Highlight(HighlightConfig(storage="disk"))
    buffer.open(RunContext(folder=tmp_path, writes=False))
    buffer.add([group(1, 1, "a", 1.0), group(5, 1, "b", 0.0)], 1)
    assert len({*buffer.rows["prompt"].tolist()}) == 2


def test_a_checkpoint_from_before_prompts_were_kept_is_read(tmp_path: Path) -> None:
    buffer, again = (Highlight(HighlightConfig(window=1, storage="disk")) for _ in range(2))
    for each in (buffer, again):
        each.open(RunContext(folder=tmp_path))
    buffer.add([group(1, 1, "a", 1.0), group(5, 1, "b", 0.0)], 1)
    state = buffer.state_dict()
    for row in state["entries"]["stored"]["rows"]:
        del row["prompt_id"]
    again.load_state_dict(state)
    assert again.rows["prompt"].tolist() == buffer.rows["prompt"].tolist()
