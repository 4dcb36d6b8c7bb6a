"""Generation in a process of its own while training runs: admission, queue, hand-over, resume."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

import rlkit
from rlkit.errors import UserError
from rlkit.rollout.ahead import Ahead, capacity, version_of
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.source import Completed
from rlkit.tasks.stream import PromptStream
from tests.cli import metrics, run, without_times
from tests.end_to_end.test_kills import COMMON, weights
from tests.rollout.remotes import ids, remote, stream
from tests.steps import drawing, move
from tests.tiny import make_policy

Queue = tuple[Ahead, PromptStream]


# ---- the admission rule


@pytest.mark.parametrize(
    ("version", "accepted", "running", "expected"),
    [
        (0, 0, 0, 12),  # (2 + 0 + 1) 4: the first step fills the queue
        (0, 0, 12, 0),
        (1, 4, 8, 4),  # one update was made: one batch more
        (1, 8, 4, 4),  # accepted and running count alike
        (5, 20, 0, 12),  # everything was used: as at the start
        (5, 20, 1, 11),
        (1, 40, 0, 0),  # never below none
    ],
)
def test_capacity_by_hand(version: int, accepted: int, running: int, expected: int) -> None:
    found = capacity(accepted=accepted, running=running, version=version, batch=4, max_staleness=2)
    assert found == expected


def test_without_staleness_only_the_step_itself_is_admitted() -> None:
    assert capacity(accepted=12, running=0, version=3, batch=4, max_staleness=0) == 4


# ---- commands and answers


# ---- a real process with a tiny model


def versions(groups: Sequence[Completed]) -> list[int]:
    return [version_of(group, -1) for group in groups]


@pytest.fixture
def two_ahead() -> Iterator[Queue]:
    policy = make_policy()
    engine = remote(policy, mode="async", max_staleness=2, deterministic=True)
    yield Ahead(engine, greedy=True), stream(policy)
    engine.close()


def take(queue: Ahead, prompts: PromptStream, step: int, wanted: int = 2) -> list[Completed]:
    """What step `step` trains on; it plans groups two by two, and moves the weights at its end."""
    plan = drawing(prompts, step, wanted, n=3)
    queue.begin(plan)
    taken = queue.completed(plan, None, 0)
    move(queue.engine.policy)
    queue.engine.sync(step + 1)
    return taken


@pytest.mark.slow
def test_each_step_takes_the_oldest_groups_and_asks_ahead(two_ahead: Queue) -> None:
    """Steps 1 to 3 train on pi_1's groups, then step k on those of pi_(k-2); the prompts keep their
    order, and two steps' groups are always ahead."""
    queue, prompts = two_ahead
    taken = [take(queue, prompts, step) for step in range(1, 7)]
    assert [versions(groups) for groups in taken] == [[v, v] for v in (1, 1, 1, 2, 3, 4)]
    names = [group.request.prompt.prompt_id for groups in taken for group in groups]
    prompts = stream(make_policy())
    assert names == [prompt.prompt_id for prompt in prompts.take(12)]
    assert queue.metrics() == {"off_policy/dropped": 0, "off_policy/ahead": 4}
    assert all(len(group.own) == 3 and group.greedy is not None for group in chain(*taken))


@pytest.mark.slow
def test_groups_that_grew_too_old_are_dropped_counted_and_replaced(two_ahead: Queue) -> None:
    """Six groups of pi_1 lie ready in step 1, and steps then want one group each: in step 4 the two
    left are three steps old. The rule admits nothing in steps 2 and 3, so pi_4 answers instead."""
    queue, prompts = two_ahead
    assert versions(take(queue, prompts, 1)) == [1, 1]
    for step in (2, 3):
        assert versions(take(queue, prompts, step, wanted=1)) == [1]
        assert queue.metrics()["off_policy/dropped"] == 0
        assert "off_policy/dropped_mean_length" not in queue.metrics()
    assert versions(take(queue, prompts, 4, wanted=1)) == [4]
    found = queue.metrics()
    assert found["off_policy/dropped"] == 2
    lengths = [len(one.response_ids) for group in queue.dropped for one in group.own]
    assert len(lengths) == 6
    assert found["off_policy/dropped_mean_length"] == pytest.approx(sum(lengths) / 6)
    assert queue.wasted == (6, sum(lengths))


@pytest.mark.slow
def test_a_step_that_wants_more_than_lies_ready_asks_for_the_rest(two_ahead: Queue) -> None:
    queue, prompts = two_ahead
    take(queue, prompts, 1, wanted=1)
    assert versions(take(queue, prompts, 2, wanted=4)) == [1, 1, 2, 2]


@pytest.mark.slow
def test_what_is_missing_after_the_rewards_is_taken_from_the_queue(two_ahead: Queue) -> None:
    queue, prompts = two_ahead
    take(queue, prompts, 1)

    position = prompts.position
    assert len(queue.completed(drawing(prompts, 1), 1, 1)) == 1
    assert prompts.position == position, "the queue had enough, so nothing is planned"
    assert queue.metrics()["off_policy/ahead"] == 3


@pytest.mark.slow
def test_the_state_holds_the_queue_and_gives_the_same_next_batches(two_ahead: Queue) -> None:
    """A queue in a new process, with the policy, the stream and the state of this one, gives the
    same groups; those in flight when the state was taken are in it."""
    queue, prompts = two_ahead
    for step in (1, 2):
        take(queue, prompts, step)
    assert queue.jobs, "something is in flight"
    state, position = queue.state_dict(), prompts.state_dict()
    policy = make_policy()
    policy.model.load_state_dict(queue.engine.policy.model.state_dict())
    engine = remote(policy, mode="async", max_staleness=2, deterministic=True)
    try:
        resumed, again = Ahead(engine, greedy=True), stream(policy)
        again.load_state_dict(position)
        resumed.load_state_dict(state, again)
        engine.sync(3)
        for step in range(3, 9):
            a, b = take(queue, prompts, step), take(resumed, again, step)
            assert ids([g.own for g in a]) == ids([g.own for g in b])
            assert versions(a) == versions(b)
            assert ids([[g.greedy] for g in a if g.greedy]) == ids(
                [[g.greedy] for g in b if g.greedy]
            )
    finally:
        engine.close()


@pytest.mark.slow
def test_a_process_that_died_ends_the_run_with_one_line(two_ahead: Queue) -> None:
    queue, prompts = two_ahead
    assert isinstance(queue.engine, RemoteEngine) and queue.engine.process is not None
    process = queue.engine.process
    process.kill()
    with pytest.raises(UserError, match=r"ended with status -9; continue .* resume=auto"):
        take(queue, prompts, 1)


# ---- settings


def test_buffers_that_plan_by_what_they_hold_are_those_that_are_refused(tmp_path: Path) -> None:
    """Their plan of a step would be made before the step before it was added."""
    result = run(
        *("algorithm=exgrpo", "rollout.mode=ahead", "dry_run=true", "output_dir=x"), cwd=tmp_path
    )
    assert result.status == 2
    assert result.err.startswith("rlkit: buffer=exgrpo plans a step's prompts by what it knows")
    assert len(result.err.splitlines()) == 1
    plain = [
        name
        for name in rlkit.names("buffer")
        if type(rlkit.build("buffer", name)).plan is rlkit.interfaces.ReplayBuffer.plan
    ]
    assert {"on_policy", "fifo", "prioritized"} <= set(plain)


def test_adapters_are_refused(tmp_path: Path) -> None:
    result = run(
        *("algorithm=grpo", "rollout.mode=ahead", "model.lora.r=2", "dry_run=true"), cwd=tmp_path
    )
    assert result.status == 2 and "use rollout.mode=sync with model.lora" in result.err


# ---- whole runs

MODES = {
    "sync": (),
    "no_staleness": ("rollout.mode=async", "rollout.max_staleness=0"),
    "ahead": ("rollout.mode=ahead",),
    "async": ("rollout.mode=async", "rollout.max_staleness=2", "rollout.deterministic=true"),
}


def start(name: str, folder: Path, kill: str = "", *more: str) -> None:
    result = run(
        *(*COMMON, "algorithm=remix", "schedule.at=4", *MODES[name], *more),
        *(f"output_dir={folder}", "resume=auto"),
        cwd=folder.parent,
        env={"KILL": kill},
    )
    assert result.status == (-signal.SIGKILL if kill else 0), result.err


@cache
def uninterrupted(name: str) -> Path:
    folder = Path(mkdtemp(prefix="rlkit-whole-")) / "out"
    start(name, folder)
    return folder


def figures(folder: Path) -> list[dict[str, float]]:
    return without_times(metrics(folder))


@pytest.mark.slow
def test_without_staleness_a_run_in_two_processes_is_the_synchronous_one() -> None:
    """Bit for bit: the same prompts, draws, weights; only the queue's own metrics are new."""
    one, two = uninterrupted("sync"), uninterrupted("no_staleness")
    rows = figures(two)
    for row in rows:
        for name in ("off_policy/dropped", "off_policy/ahead"):
            row.pop(name, None)
    assert rows == figures(one)
    assert all(torch.equal(value, weights(two)[key]) for key, value in weights(one).items())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kills"), [("ahead", ["reward:4"]), ("async", ["tree:15"])])
def test_a_killed_run_ends_like_an_uninterrupted_one(
    name: str, kills: list[str], tmp_path: Path
) -> None:
    """ReMix, before and after its rebirth in step 4, from which a step wants more new groups."""
    for kill in kills:
        start(name, tmp_path / "out", kill)
    start(name, tmp_path / "out")
    whole = uninterrupted(name)
    assert figures(tmp_path / "out") == figures(whole)
    mine, theirs = weights(tmp_path / "out"), weights(whole)
    assert all(torch.equal(value, mine[key]) for key, value in theirs.items())


def test_ahead_is_one_step_behind() -> None:
    stale = [
        (row["off_policy/staleness_max"], row["off_policy/dropped"])
        for row in figures(uninterrupted("ahead"))
        if "policy/loss" in row
    ]
    assert stale[0] == (0, 0)
    assert all(age >= 1 and dropped == 0 for age, dropped in stale[1:])
