"""The loop: what a step asks its parts for and in which order, when it evaluates, saves, stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.batch import Group, Request, Sample, Score
from rlkit.config.run import EvalConfig
from rlkit.config.saving import CheckpointConfig, CompletionsConfig
from rlkit.config.scalars import scalar_of
from rlkit.errors import UserError
from rlkit.interfaces import Phase, Progress, PromptSource, ReincarnationSchedule, ReplayBuffer
from rlkit.models.policy import Policy
from rlkit.runs.checkpoint import list_checkpoints
from rlkit.runs.token_file import read_tokens, token_file
from rlkit.training.clock import TIMERS
from rlkit.training.trainer import Trainer
from rlkit.training.update import Updater
from tests.sessions import config_of, heard, make_session
from tests.steps import plan_of
from tests.tiny import make_policy


class Scripted(ReincarnationSchedule):
    """The phases it is given, one a step."""

    caches = ("seen",)

    def __init__(self, *phases: Phase) -> None:
        super().__init__()
        self.phases, self.seen = phases, list[Progress]()

    def phase(self, progress: Progress) -> Phase:
        self.seen.append(progress)
        return self.phases[progress.step - 1]


class Recording(ReplayBuffer):
    """Writes down the calls; trains what is fresh and asks for scores of what it trained before."""

    caches = ("calls", "groups", "observed")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.groups: list[Group] = []
        self.observed: list[Mapping[int, Score]] = []

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Any]:
        self.calls.append("plan")
        return super().plan(batch, step, prompts)

    def scores_wanted(self, step: int) -> list[Sample]:
        self.calls.append("scores_wanted")
        return [s for g in self.groups for s in g.samples]

    def observe(self, scores: Mapping[int, Score]) -> None:
        self.calls.append("observe")
        self.observed.append(scores)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        self.calls.append("build")
        return fresh

    def add(self, fresh: list[Group], step: int) -> None:
        self.calls.append("add")
        self.groups = fresh

    def clear(self) -> None:
        self.calls.append("clear")
        self.groups = []

    def __len__(self) -> int:
        return sum(len(g.samples) for g in self.groups)


def test_a_step_asks_the_buffer_in_order(policy: Policy, tmp_path: Path) -> None:
    buffer = Recording()
    assert Trainer(make_session(policy, tmp_path, buffer=buffer)).run()
    first = ["plan", "scores_wanted", "build", "add", "observe"]
    second = ["plan", "scores_wanted", "observe", "build", "add", "observe"]
    assert buffer.calls == first + second
    wanted, of_update = buffer.observed[1:]
    assert len(wanted) == len(of_update) == 4
    assert not wanted.keys() & of_update.keys(), "those asked for are the step's before"


class Returning(Recording):
    """Trains what is fresh and, beside it, what was fresh in the step before."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return fresh + self.groups


@pytest.mark.parametrize("every", [1, 3])
def test_what_a_buffer_stored_is_replayed_and_what_lagging_weights_wrote_is_not(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Two new responses a group, then two stored ones; their ages are those of their weights."""
    found: list[tuple[list[bool], list[int]]] = []
    real = Updater.run

    def run(self: Updater, batch: Any, passes: int, step: int, tokens_of: int) -> Any:
        found.append((batch.loss.replayed.tolist(), batch.loss.age.tolist()))
        return real(self, batch, passes, step, tokens_of)

    monkeypatch.setattr(Updater, "run", run)
    session = make_session(
        policy, tmp_path, buffer=Returning(), config=config_of(tmp_path, steps=3)
    )
    session.engine.config = session.engine.config.model_copy(update={"sync_every": every})
    Trainer(session).run()
    fresh, mixed = [False] * 4, [False] * 4 + [True] * 4
    assert [replayed for replayed, _ in found] == [fresh, mixed, mixed]
    old = [[0, 1], [0, 1]] if every == 1 else [[1, 1], [2, 2]]
    assert [age for _, age in found] == [[0] * 4, *([a] * 4 + [b] * 4 for a, b in old)]
    assert [row["buffer/fresh_fraction"] for row in rows_of(tmp_path)] == [1, 0.5, 0.5]


def test_without_replay_the_buffer_is_only_shown_what_was_generated(
    policy: Policy, tmp_path: Path
) -> None:
    buffer, alone = Recording(), Phase(name="alone", replay=False)
    session = make_session(policy, tmp_path, buffer=buffer, schedule=Scripted(alone, alone))
    Trainer(session).run()
    assert buffer.calls == ["add", "observe"] * 2


def test_events_happen_in_the_step_whose_phase_names_them(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []
    monkeypatch.setattr(Updater, "reset", lambda self: resets.append(1))
    events: Any = frozenset({"rebase", "clear_buffer", "reset_optimizer"})
    schedule = Scripted(
        Phase(name="a"), Phase(name="b", events=events, values={"anchor.beta": 0.5})
    )
    buffer = Recording()
    session = make_session(policy, tmp_path, buffer=buffer, schedule=schedule)
    bases: list[int] = []
    real = session.parts.anchor.rebase

    def rebase(now: Policy) -> None:
        bases.append(len(resets))
        real(now)

    monkeypatch.setattr(session.parts.anchor, "rebase", rebase)
    Trainer(session).run()
    assert bases == [0, 0], "before the first step, and at the rebirth before the reset"
    assert resets == [1] and buffer.calls.count("clear") == 1
    one, two = rows_of(tmp_path)
    assert [row["schedule/rebirths"] for row in (one, two)] == [0, 1]
    assert heard(session).lines == ["Step 2: rebirth 1.", "checkpoint-2 saved"]
    assert [row["schedule/phase"] for row in (one, two)] == [0, 1]
    assert "schedule/anchor.beta" not in one and two["schedule/anchor.beta"] == 0.5
    assert session.parts.anchor.config.beta == 0.5


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The logged training steps."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "policy/lr" in row]


@pytest.mark.parametrize(("passes", "updates"), [(None, 1), (3, 3)])
def test_a_phase_may_change_the_passes(
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passes: int | None,
    updates: int,
) -> None:
    found: list[int] = []
    real = Updater.run

    def run(self: Updater, batch: Any, passes: int, step: int, tokens_of: int) -> Any:
        found.append(passes)
        return real(self, batch, passes, step, tokens_of)

    monkeypatch.setattr(Updater, "run", run)
    schedule = Scripted(Phase(name="a", updates_per_batch=passes))
    config = config_of(tmp_path, steps=1)
    Trainer(make_session(policy, tmp_path, config=config, schedule=schedule)).run()
    assert found == [updates]


def test_a_schedule_sees_what_is_done_before_its_step(policy: Policy, tmp_path: Path) -> None:
    schedule = Scripted(Phase(name="a"), Phase(name="a"))
    Trainer(make_session(policy, tmp_path, schedule=schedule)).run()
    one, two = schedule.seen
    assert (one.step, two.step, one.steps) == (1, 2, 2)
    assert (one.rollouts, two.rollouts) == (0, 4)
    assert one.metrics == {} and "policy/loss" in two.metrics
    assert "eval/pass@1" in one.eval and one.eval_step == two.eval_step == 0


def test_scalar_schedules_are_followed_before_the_step(policy: Policy, tmp_path: Path) -> None:
    ramp = scalar_of("anchor.beta", {"kind": "linear", "start": 1.0, "end": 3.0, "steps": 2})
    Trainer(make_session(policy, tmp_path, scalars={"anchor.beta": ramp})).run()
    assert [row["schedule/anchor.beta"] for row in rows_of(tmp_path)] == [1.0, 2.0]


def test_an_empty_batch_is_an_error_that_names_the_step(policy: Policy, tmp_path: Path) -> None:
    class Empty(Recording):
        def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
            return []

    with pytest.raises(UserError, match="step 1: the buffer built an empty batch"):
        Trainer(make_session(policy, tmp_path, buffer=Empty())).run()


@pytest.mark.parametrize(
    ("every", "evaluations", "checkpoints"),
    [(None, [0, 4], ["checkpoint-4"]), (3, [0, 3, 4], ["checkpoint-3", "checkpoint-4"])],
)
def test_a_run_is_evaluated_and_saved_at_its_ends_and_in_between(
    policy: Policy,
    tmp_path: Path,
    every: int | None,
    evaluations: list[int],
    checkpoints: list[str],
) -> None:
    settings = {
        "eval": EvalConfig(problems=2, every=every),
        "checkpoint": CheckpointConfig(every=every, keep=9),
    }
    config = config_of(tmp_path, steps=4).model_copy(update=settings)
    session = make_session(policy, tmp_path, config=config)
    assert Trainer(session).run()
    logged = heard(session).logged
    assert [step for step, row in logged if "eval/pass@1" in row] == evaluations
    assert [step for step, row in logged if "policy/lr" in row] == [1, 2, 3, 4]
    assert [path.name for path in list_checkpoints(tmp_path)] == checkpoints


def after(calls: int) -> Callable[[], bool]:
    """Asks to stop at the n-th question."""
    asked = iter(range(1, 100))
    return lambda: next(asked) >= calls


def test_a_run_asked_to_stop_ends_after_the_step_with_a_checkpoint(
    policy: Policy, tmp_path: Path
) -> None:
    session = make_session(policy, tmp_path, config=config_of(tmp_path, steps=3), stop=after(2))
    trainer = Trainer(session)
    assert not trainer.run() and trainer.count.step == 2
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2"]


def test_a_run_asked_to_stop_in_its_last_step_has_ended(policy: Policy, tmp_path: Path) -> None:
    assert Trainer(make_session(policy, tmp_path, stop=after(2))).run()


def test_the_next_stage_goes_on_counting_with_the_same_learner(
    policy: Policy, tmp_path: Path
) -> None:
    trainer = Trainer(make_session(policy, tmp_path / "a"))
    trainer.run()
    session = make_session(policy, tmp_path / "b")
    after = trainer.next_stage(session)
    after.run()
    assert [step for step, row in heard(session).logged if "policy/lr" in row] == [3, 4]
    assert [row["schedule/stage"] for row in rows_of(tmp_path / "b")] == [1, 1]
    assert not [step for step, row in heard(session).logged if step == 2], "evaluated already"


def test_the_next_stage_takes_the_float32_weights_behind_the_rounded_ones(tmp_path: Path) -> None:
    policy = make_policy(half=True)
    trainer = Trainer(make_session(policy, tmp_path / "a"))
    trainer.run()
    kept = [m.clone() for m in trainer.state.updater.learner.masters.of.values()]
    assert not all(torch.equal(m, m.bfloat16()) for m in kept)
    after = trainer.next_stage(make_session(policy, tmp_path / "b"))
    learner = after.state.updater.learner
    assert all(map(torch.equal, learner.masters.of.values(), kept)) and not learner.optimizer.state


def test_a_step_logs_what_it_did_and_no_number_that_is_not_finite(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = Recording()
    monkeypatch.setattr(buffer, "stats", lambda: {"odd": float("nan"), "even": 2.0})
    Trainer(make_session(policy, tmp_path, buffer=buffer)).run()
    one, two = rows_of(tmp_path)
    assert "buffer/odd" not in one and one["buffer/even"] == 2.0
    assert (one["rollouts/total"], two["rollouts/total"]) == (4, 8)
    assert (one["buffer/size"], two["buffer/reuse_mean"]) == (4, 1.0)
    assert two["run/processes"] == 1
    assert all(one[f"time/{name}"] >= 0 for name in TIMERS)
    assert sum(one[f"time/{name}"] for name in TIMERS) <= one["time/step"]
    assert one["throughput/tokens_per_s"] > 0


def test_what_was_generated_and_dropped_counts(policy: Policy, tmp_path: Path) -> None:
    """Rewards and lengths are those of what was trained; the cost is that of all."""
    session = make_session(policy, tmp_path)
    plan = plan_of([Request(prompt=session.prompts.take(1)[0], n=3)], 1)
    session.collector.source.dropped = dropped = session.collector.source.completed(plan, None, 7)
    tokens = sum(one.own_tokens for group in dropped for one in group.own)
    trainer = Trainer(session)
    trainer.run()
    one, two = rows_of(tmp_path)
    assert (one["rollouts/total"], two["rollouts/total"]) == (4 + 3, 8 + 6)
    mean = one["completions/mean_length"]
    assert one["rollouts/tokens"] == pytest.approx(4 * mean + tokens)


def trained_rows(folder: Path, step: int) -> Sequence[str]:
    return (folder / "completions" / f"step-{step}.jsonl").read_text().splitlines()


def test_skipped_updates_leave_their_responses_and_too_many_end_the_run(
    policy: Policy, tmp_path: Path
) -> None:
    config = config_of(tmp_path, max_skipped_steps=2)
    session = make_session(policy, tmp_path, config=config)
    head = policy.model.get_output_embeddings().weight
    trainer = Trainer(session)
    hooked = head.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="step 2: 2 updates in a row .* not finite"):
        trainer.run()
    hooked.remove()
    path = tmp_path / "nonfinite" / "step-1.jsonl"
    assert heard(session).lines == [
        f"Step 1: an update was not finite and was skipped; its responses are in {path}."
    ]
    assert path.read_text().splitlines() == trained_rows(tmp_path, 1)
    assert [row["skipped"] for row in read_tokens(token_file(tmp_path, 1))] == [True] * 4
    assert torch.isfinite(head).all()


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, {1: 4, 2: 4, 3: 4}),
        ({"every": 2}, {2: 4}),
        ({"max_per_step": 3}, {1: 3, 2: 3, 3: 3}),
        ({"every": 3, "max_per_step": 1}, {3: 1}),
        ({"every": None}, {}),
        ({"tokens_per_step": 1}, {1: 4, 2: 4, 3: 4}),
    ],
)
def test_what_is_written_of_the_responses_is_bounded(
    policy: Policy, tmp_path: Path, settings: dict[str, Any], lines: dict[int, int]
) -> None:
    """Two groups of two responses per step."""
    config = config_of(tmp_path, steps=3)
    changed = CompletionsConfig.model_validate({"tokens_per_step": 0} | settings)
    config = config.model_copy(update={"completions": changed})
    Trainer(make_session(policy, tmp_path, config=config)).run()
    found = {path.name for path in (tmp_path / "completions").iterdir()}
    tokens = {f"tokens-step-{step}.parquet" for step in lines if "tokens_per_step" in settings}
    assert found == {f"step-{step}.jsonl" for step in lines} | tokens
    assert {step: len(trained_rows(tmp_path, step)) for step in lines} == lines
