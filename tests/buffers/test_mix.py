"""Two buffers share a batch: places, requests, groups, scores and state of each."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buffers.fifo import Fifo
from buffers.mix import Mix, MixConfig
from buffers.on_policy import OnPolicy
from rlkit.batch import Group, Sample, Score
from rlkit.errors import UserError
from rlkit.interfaces import FileRow, RunContext, RunSize
from rlkit.registry import build
from rlkit.tasks.read import read_rows
from rlkit.testing.buffers import FakePrompts, ids
from tests.buffers.test_replay import Cycle, check_real_run, check_resumes
from tests.cli import run

FIFO = {"name": "fifo", "window": 3, "replay_fraction": 0.5}


def mix(share: float, first: Any = FIFO, second: Any = None, seed: int = 0) -> Mix:
    buffer = Mix(MixConfig(first=first, second=second or {"name": "expert"}, share=share))
    buffer.open(RunContext(seed=seed))
    return buffer


@pytest.mark.parametrize(("share", "second"), [(0.0, 0), (0.2, 2), (0.24, 2), (0.26, 3), (1.0, 10)])
def test_places(share: float, second: int) -> None:
    assert mix(share).places(10) == {"first": 10 - second, "second": second}


@pytest.mark.parametrize(
    ("share", "batch", "second"), [(0.2, 2, 1), (0.95, 2, 1), (0.1, 5, 1), (0.2, 1, 0), (0.0, 2, 0)]
)
def test_a_buffer_with_a_share_has_a_place_where_there_are_two(
    share: float, batch: int, second: int
) -> None:
    assert mix(share).places(batch) == {"first": batch - second, "second": second}


def test_one_without_a_place_is_told() -> None:
    size = RunSize(steps=50, groups=1, num_generations=4)
    assert mix(0.2, {"name": "on_policy"}).out_of_reach(size) == (
        "buffer.second has no place in a batch"
    )


@pytest.mark.parametrize(("share", "checks"), [(0.0, False), (0.5, True)])
def test_rows_are_checked_for_those_with_a_share(share: float, checks: bool) -> None:
    row = FileRow(number=1, place="problem 1", columns={"prompt": "q"})
    with pytest.raises(UserError, match="no 'solution'") if checks else nullcontext():
        mix(share, {"name": "on_policy"}).check_rows(read_rows, [row])


def test_what_either_needs_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(self: Fifo) -> None:
        raise UserError("a package")

    monkeypatch.setattr(Fifo, "require", lacking)
    with pytest.raises(UserError, match="a package"):
        mix(0.5).require()


def test_a_prompt_that_was_given_back_belongs_to_who_asks_for_it_next() -> None:
    """The second's place was not tried again, so the first plans its prompt."""
    buffer, prompts = mix(0.5, {"name": "on_policy"}, {"name": "on_policy"}), FakePrompts()
    given_back = buffer.plan(2, 1, prompts)[1].prompt
    waiting, draw = [given_back], prompts.take
    prompts.take = lambda n: [waiting.pop()] if waiting else draw(n)  # type: ignore[method-assign]
    buffer.plan(2, 1, prompts)
    fresh = [Group(prompt=given_back, samples=[])]
    assert buffer._own(fresh, "first") == fresh and buffer._own(fresh, "second") == []


def test_each_builds_from_its_own_groups_alone() -> None:
    """8 places: 6 of a FIFO that replays half of them, 2 of demonstrations."""
    cycle = Cycle(mix(0.25), 8)
    for step in range(1, 6):
        fresh, trained = cycle.step(step)
        shown = [g for g in trained if any(s.source == "expert" for s in g.samples)]
        assert len(fresh) == 5 and len(shown) == 2
        assert len(trained) == (5 if step == 1 else 8)
        assert cycle.buffer.fresh_share(8) == 3
    assert len(cycle.buffer) == 3 * 3 * 4
    assert cycle.buffer.stats() == {"first_groups": 9.0}


def test_a_share_of_nothing_or_all_is_one_buffer_alone() -> None:
    """The seed of a part is derived from the run's, so the same derived seed draws the same."""
    alone = Fifo(build("buffer", "fifo", window=3, replay_fraction=0.5).config)
    for share, place in ((0.0, "first"), (1.0, "second")):
        mixed = Cycle(mix(share, FIFO, FIFO), 6)
        mixed.step(1)
        alone.clear()
        alone.open(RunContext(seed=mixed.buffer.parts[place].context.seed))
        single = Cycle(alone, 6)
        single.step(1)
        for step in range(2, 8):
            assert ids(mixed.step(step)[1]) == ids(single.step(step)[1])


def test_the_two_draw_differently() -> None:
    buffer = mix(0.5, FIFO, FIFO)
    Cycle(buffer, 8).step(1)
    first, second = (part.context.seed for part in buffer.parts.values())
    assert len({first, second, buffer.context.seed}) == 3


class Wanting(OnPolicy):
    """Wants scores of all it has seen, and remembers what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Sample] = []
        self.scored: set[int] = set()

    def scores_wanted(self, step: int) -> list[Sample]:
        """Everything."""
        return self.kept

    def observe(self, scores: Any) -> None:
        """Remember."""
        self.scored |= set(scores)

    def add(self, fresh: list[Group], step: int) -> None:
        """Keep."""
        self.kept += [sample for group in fresh for sample in group.samples]


def test_scores_wanted_by_either_are_asked_for_and_handed_to_both() -> None:
    buffer = mix(0.5, FIFO, FIFO)
    wanting = Wanting(), Wanting()
    buffer.parts = dict(zip(("first", "second"), wanting, strict=True))
    cycle = Cycle(buffer, 4)
    fresh, _ = cycle.step(1)
    wanted = {s.sample_id for s in buffer.scores_wanted(2)}
    assert wanted == {s.sample_id for g in fresh for s in g.samples}
    logp = fresh[0].samples[0].behavior_logp
    buffer.observe({-3: Score(logp=logp, entropy=0.0, advantage=0.0)})
    assert all(-3 in part.scored for part in wanting)


def test_a_plan_asked_again_in_a_step_keeps_the_first_answers() -> None:
    cycle = Cycle(mix(0.5, {"name": "on_policy"}, FIFO), 4)
    requests = cycle.buffer.plan(4, 1, cycle.prompts)
    more = cycle.buffer.plan(4, 1, cycle.prompts)
    fresh = cycle.rollouts.groups([*requests[1:], more[0]], 1)
    assert ids(cycle.buffer.build(fresh, 4, 1)) == ids([fresh[0], fresh[-1], *fresh[1:-1]])


def test_it_resumes() -> None:
    check_resumes(
        lambda: mix(0.5, FIFO, {"name": "prioritized"}),
        Cycle(mix(0.5, FIFO, {"name": "prioritized"}), 8),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "buffer.first needs the name"),
        ({"name": "fifos"}, "Did you mean 'fifo'?"),
        (
            {"name": "fifo", "windows": 3},
            "unknown key buffer.first.windows. Did you mean 'window'?",
        ),
        ({"name": "fifo", "window": 0}, "buffer.first.window=0 is not valid"),
    ],
)
def test_wrong_parts(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        mix(0.5, settings)
    assert message in str(error.value)


@pytest.mark.slow
def test_a_real_run_of_replay_beside_demonstrations(tmp_path: Path) -> None:
    rows = check_real_run(
        *("algorithm=chord", "buffer.first.name=fifo", "+buffer.first.replay_fraction=0.5"),
        *("buffer.share=0.5", "rollout.num_generations=4"),
        cwd=tmp_path,
    )
    assert [row["rollouts/total"] for row in rows] == [4, 8, 12], "one new group of four per step"
    assert [row["buffer/fresh_fraction"] for row in rows] == [1, 6 / 10, 6 / 10]


def test_demonstrations_in_it_are_refused_with_a_loss_that_cannot_use_them(tmp_path: Path) -> None:
    out = run("algorithm=grpo", "buffer=mix", "dry_run=true", cwd=tmp_path)
    assert out.status == 2 and "buffer=mix adds demonstrations" in out.err
    fine = run(
        "algorithm=grpo", "buffer=mix", "buffer.second.name=fifo", "dry_run=true", cwd=tmp_path
    )
    assert fine.status == 0, fine.err


def test_both_get_what_the_run_sets() -> None:
    buffer = mix(0.5, FIFO, FIFO)
    buffer.open(RunContext(folder=Path("buffer"), saved_states=lambda: ["7"], writes=False))
    Cycle(buffer, 4).step(1)
    for name, part in buffer.parts.items():
        assert part.context.folder == Path("buffer", name)
        assert (part.context.saved_states(), part.context.writes) == (["7"], False)


def test_what_either_never_comes_to_is_told_by_its_own_places() -> None:
    """SPEAR's 2 of 8 places generate 1 group of 4 a step: 40 in 10 steps, of 1.5 x 30 needed."""
    spear = {"name": "spear", "size": 30, "replay_fraction": 0.5}
    both = Mix(MixConfig(first={"name": "on_policy"}, second=spear, share=0.25))
    size = RunSize(steps=50, groups=8, num_generations=4)
    told = both.out_of_reach(size)
    assert told is not None and told.startswith("buffer.second: replay begins when more than 45")
    assert "10 steps generate 40" in told
    assert both.out_of_reach(replace(size, groups=16)) is None
    assert Mix().out_of_reach(size) is None
