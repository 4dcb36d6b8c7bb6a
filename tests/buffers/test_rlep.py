"""Successes of a static pool: from a file or from the first steps, mixed into groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest

from buffers.rlep import FIRST_ID, Rlep, RlepConfig
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.registry import build
from rlkit.tasks.read import read_rows
from tests.buffers.test_replay import (
    Cycle,
    FewPrompts,
    check_frequencies,
    check_real_run_that_revisits,
    check_resumes,
    one,
)

ROW: dict[str, Any] = {
    "prompt_id": "prompt-0",
    "response_ids": [3, 4],
    "behavior_logp": [-0.5, -1.0],
    "reward": 1.0,
}


def pool_file(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pooled(path: str, **context: Any) -> Rlep:
    buffer = Rlep(RlepConfig(pool=path))
    buffer.open(RunContext(read_rows=read_rows, **context))
    return buffer


def test_how_many_prompts_have_successes_is_said(tmp_path: Path) -> None:
    heard: list[str] = []
    path = pool_file(tmp_path, ROW, ROW, {**ROW, "prompt_id": "other"})
    pooled(path, problems={"prompt-0": "a", "prompt-1": "b", "c": "d"}, say=heard.append)
    assert heard == [f"{path}: successes for 2 prompts, 1 of them among the 3 of the task."]


def test_a_file_gives_its_successes_to_their_prompts(tmp_path: Path) -> None:
    path = pool_file(tmp_path, ROW, {**ROW, "reward": 0.0}, {**ROW, "prompt_id": "other"})
    cycle = Cycle(pooled(path), 2, FewPrompts(2))
    for step in (1, 2):
        trained = cycle.step(step)[1]
        assert [len(group.samples) for group in trained] == [5, 4], "one success, none"
        sample = trained[0].samples[-1]
        assert sample.sample_id == FIRST_ID - 1 and sample.source == "policy"
        assert sample.behavior_logp.tolist() == [-0.5, -1.0]
        assert sample.policy_version.tolist() == [0, 0] and sample.loss_mask.all()
    assert len(cycle.buffer) == 2, "new successes do not join"


def test_successes_are_drawn_evenly_and_once_a_step(tmp_path: Path) -> None:
    """Two groups of a prompt with three successes, M = 2: two for the first, one for the second."""
    path = pool_file(tmp_path, *[ROW] * 3)
    cycle = Cycle(pooled(path), 2, FewPrompts(1))
    found = Counter[Hashable]()
    for step in range(1, 1001):
        trained = cycle.step(step)[1]
        drawn = [[FIRST_ID - s.sample_id for s in group.samples[4:]] for group in trained]
        assert sorted(drawn[0] + drawn[1]) == [1, 2, 3] and len(drawn[0]) == 2
        found[drawn[1][0]] += 1
    check_frequencies(found, {1: 1 / 3, 2: 1 / 3, 3: 1 / 3})


def test_the_first_steps_make_the_pool() -> None:
    buffer = Rlep(RlepConfig(collect_steps=2, per_prompt=3))
    cycle = Cycle(buffer, 2, FewPrompts(2))
    sizes = []
    for step in (1, 2, 3, 4):
        fresh, trained = cycle.step(step)
        sizes.append(len(buffer))
        assert trained == fresh if step <= 2 else all(len(g.samples) == 6 for g in trained)
        replayed = [s for g in trained for s in g.samples if s.step < step]
        assert all(s.reward == 1 and s.step <= 2 for s in replayed)
    assert sizes == [4, 6, 6, 6], "2 of 4 responses succeed; at most 3 a prompt"


def test_successes_over_age_are_dropped_or_drawn_last() -> None:
    """A prompt's two successes of step 1 and two of step 2, drawn at step 4."""

    def drawn(**fields: Any) -> list[int]:
        buffer = Rlep(RlepConfig(collect_steps=2, **fields))
        for step in (1, 2):
            buffer.add([one(10 * step, step, n=4)], step)
        (group,) = buffer.build([one(90, 4)], 1, 4)
        return sorted(s.step for s in group.samples[2:])

    assert drawn(replayed=9) == [1, 1, 2, 2]
    assert drawn(replayed=9, max_age=2) == [2, 2]
    assert drawn(replayed=2, max_age=2, over_age="keep") == [2, 2]
    assert drawn(replayed=3, max_age=2, over_age="keep") == [1, 2, 2]


def test_it_resumes() -> None:
    def make() -> Any:
        return build("buffer", "rlep", collect_steps=5)

    check_resumes(make, Cycle(make(), 4, FewPrompts(7)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt_id": "a"}, "KeyError"),
        ({**ROW, "behavior_logp": [0.0]}, "one value per token"),
        ({**ROW, "reward": "high"}, "ValueError"),
        ({**ROW, "response_ids": [], "behavior_logp": []}, "one value per token"),
    ],
)
def test_a_line_that_is_no_response_is_named(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"pool.jsonl line 2: .*{message}"):
        pooled(pool_file(tmp_path, ROW, row))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        pooled(str(tmp_path / "none.jsonl"))


def test_it_trains(tmp_path: Path) -> None:
    args = ("buffer.collect_steps=2", "buffer.success_at=0")
    rows = check_real_run_that_revisits("buffer=rlep", *args, cwd=tmp_path)
    assert rows[1]["buffer/fresh_fraction"] == 1
    assert rows[2]["buffer/fresh_fraction"] == pytest.approx(4 / 6)
