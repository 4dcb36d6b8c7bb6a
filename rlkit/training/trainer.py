"""The training loop, written once. Nothing in it knows an algorithm's name."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rlkit.batch import Group, Request, Score
from rlkit.errors import UserError
from rlkit.interfaces import (
    Part,
    Phase,
    Progress,
    State,
)
from rlkit.rollout.lag import Lag
from rlkit.runs.checkpoint import (
    CheckpointError,
    load_rng_state,
    load_tree,
    prune,
    reason_of,
    rng_state,
    save_tree,
    write_checkpoint,
)
from rlkit.training.collect import Collected
from rlkit.training.metrics import completion_rows, data_metrics, peak_memory_mb, staleness
from rlkit.training.prepare import TrainBatch, collate, prepare
from rlkit.training.references import Forwards
from rlkit.training.state import Counters, Session, load_counters
from rlkit.training.update import Updater

TIMERS = ("rollout", "reward", "forward", "update", "sync")


class Trainer:
    """Runs the loop of a session, which may be a stage of a run."""

    def __init__(self, session: Session, count: Counters | None = None) -> None:
        self.s = session
        self.train = session.config.train
        self.parts = session.parts
        self.processes = session.processes
        self.count = count or Counters()
        self.lag = Lag(session.engine, session.policy)
        self.updater = Updater(
            session.config,
            session.policy,
            session.parts,
            session.engine.config.max_completion_length,
            session.processes,
        )
        self.seconds: dict[str, float] = {}

    def run(self) -> bool:
        """Train from where the counters stand to the last step of the stage.

        Returns whether it got there; otherwise the session was asked to stop, and a checkpoint
        holds what was done.
        """
        evaluation, checkpoint = self.s.config.eval.every, self.s.config.checkpoint.every
        if self.count.step == 0:
            self.parts.anchor.rebase(self.s.policy)
        if self.count.done == 0:
            self._evaluate()
        for step in range(self.count.step + 1, self.train.steps + 1):
            metrics = self._train_step(step)
            self.count.step, self.count.metrics = step, metrics
            self._log(metrics)
            last, done = step == self.train.steps, self.count.done
            if last or (evaluation and done % evaluation == 0):
                self._evaluate()
            stopping = any(self.processes.gather(self.s.stop())) and not last
            if last or stopping or (checkpoint and done % checkpoint == 0):
                self.save(needed=last or stopping)
            if stopping:
                return False
        return True

    def _train_step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        self.seconds = dict.fromkeys(TIMERS, 0.0)
        policy, anchor, buffer = self.s.policy, self.parts.anchor, self.s.buffer
        self._follow_scalars(step)
        phase = self.s.schedule.phase(self._progress(step))
        self._apply(phase)
        fresh = self._collect(phase, step)
        groups = self._build(fresh.groups, phase, step)
        batch = self._prepare(groups, step)
        anchor.before_step(policy, step)
        metrics, scores = self._update(batch, phase, step)
        rows = completion_rows(groups, step, policy.tokenizer)
        self._report_skipped(rows)
        anchor.after_step(policy, step, metrics)
        buffer.add(fresh.groups, step)
        buffer.observe(scores)
        self._sync(step + 1)
        self.s.folder.write_completions(self.count.offset + step, rows)
        self._tally(fresh, batch)
        metrics |= fresh.metrics() | self._figures(batch, phase, step)
        metrics |= self._times(time.perf_counter() - started, batch)
        return self._agreed({n: value for n, value in metrics.items() if math.isfinite(value)})

    def _agreed(self, metrics: dict[str, float]) -> dict[str, float]:
        """The first process's metrics in every one, so that schedules decide alike."""
        return self.processes.first(lambda: metrics)

    def _apply(self, phase: Phase) -> None:
        """Carry out the phase's events and remember where the run is."""
        if "rebase" in phase.events:
            self.parts.anchor.rebase(self.s.policy)
            self.count.rebirths += 1
        if "clear_buffer" in phase.events:
            self.s.buffer.clear()
        if "reset_optimizer" in phase.events:
            self.updater.reset()
        if phase.name not in self.count.phases:
            self.count.phases.append(phase.name)
        for name, value in phase.values.items():
            self._set_field(name, value)

    def _follow_scalars(self, step: int) -> None:
        """Set every field that follows a scalar schedule to its value of this step."""
        seen = {**self.count.metrics, **self.count.eval}
        for name, scalar in self.s.scalars.items():
            self._set_field(name, scalar.value(step, seen))

    def _set_field(self, name: str, value: float) -> None:
        """Rebuild a config through its constructor with another value of "section.field"."""
        section, _, key = name.rpartition(".")
        owner = self.updater if section == "train" else self.s.sections[section]
        number = round(value) if type(getattr(owner.config, key)) is int else value
        settings = {**owner.config.model_dump(), key: number}
        owner.config = type(owner.config).model_validate(settings)
        self.count.values[name] = number

    def _collect(self, phase: Phase, step: int) -> Collected:
        """This step's fresh groups: the buffer's plan, or only new prompts where replay is off."""
        size, prompts = self.train.prompts_per_step, self.s.prompts

        def plan() -> Sequence[Request]:
            if phase.replay:
                return self.s.buffer.plan(size, step, prompts)
            return [Request(prompt=p, n=prompts.num_generations) for p in prompts.take(size)]

        wanted = self.s.buffer.fresh_share(size) if phase.replay else size
        self.s.collector.supply.begin(plan, wanted, step)
        fresh = self.s.collector.collect(plan, step, first_id=self.count.rollouts)
        self.seconds |= fresh.seconds
        return fresh

    def _build(self, fresh: list[Group], phase: Phase, step: int) -> list[Group]:
        """What is trained: the buffer's choice, or the fresh groups alone where replay is off."""
        if not phase.replay:
            return fresh
        self._score_stored(step)
        groups = self.s.buffer.build(fresh, self.train.prompts_per_step, step)
        if not groups:
            raise UserError(f"step {step}: the buffer built an empty batch")
        return groups

    def _score_stored(self, step: int) -> None:
        """Score the stored samples the buffer asks for under the current policy."""
        wanted = self.s.buffer.scores_wanted(step)
        if not wanted:
            return
        with self._timed("forward"):
            groups = [Group(prompt=self.s.prompts.get(s.prompt_id), samples=[s]) for s in wanted]
            tokens, rows = collate(groups, step).tokens, torch.arange(len(wanted))
            micro, policy = self.updater.micro, self.s.policy
            logp = micro.run(
                lambda budget: self._forwards(budget).by_rows(policy.logp, tokens, rows)
            )
            entropy = micro.run(
                lambda budget: self._forwards(budget).by_rows(
                    lambda t: policy.terms(t, "value").entropy, tokens, rows
                )
            )
        scores = {}
        for i, sample in enumerate(wanted):
            length = len(sample.response_ids)
            scores[sample.sample_id] = Score(
                logp=logp[i, :length], entropy=float(entropy[i, :length].mean()), advantage=0.0
            )
        self.s.buffer.observe(scores)

    def _prepare(self, groups: Sequence[Group], step: int) -> TrainBatch:
        with self._timed("forward"):
            return self.updater.micro.run(
                lambda budget: prepare(
                    groups,
                    step,
                    self.parts,
                    self.s.policy,
                    self.updater.critic,
                    self._forwards(budget),
                )
            )

    def _forwards(self, budget: int) -> Forwards:
        engine = self.s.engine.exact
        return Forwards(
            budget=budget,
            exact=engine and self.s.policy.exact,
            measured=not engine,
            processes=self.processes,
        )

    def _update(
        self, batch: TrainBatch, phase: Phase, step: int
    ) -> tuple[dict[str, float], dict[int, Score]]:
        with self._timed("update"):
            return self.updater.run(
                batch, phase.updates_per_batch or self.train.updates_per_batch, step
            )

    def _report_skipped(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write down the responses of skipped updates; end the run where it is stuck."""
        updater, step = self.updater, self.count.done + 1
        if not updater.offending:
            return
        path = self.s.folder.write_nonfinite(
            step, [rows[i] for i in sorted(set(updater.offending))]
        )
        if updater.is_stuck:
            raise UserError(
                f"step {step}: {updater.skipped_in_a_row} updates in a row had a loss or gradient "
                f"that is not finite; lower train.learning_rate, or see their responses in {path}"
            )
        self._say(f"Step {step}: an update was skipped, not finite; its responses are in {path}.")

    def _sync(self, step: int) -> None:
        with self._timed("sync"):
            self.lag.sync(step)

    def _tally(self, fresh: Collected, batch: TrainBatch) -> None:
        self.count.rollouts += fresh.rollouts
        self.count.tokens += fresh.tokens
        self.count.trained += len(batch.samples)

    def _evaluate(self) -> None:
        started, step = time.perf_counter(), self.count.done
        with self.lag.current(self.count.step + 1):
            metrics = self.s.evaluator.run(step)
        metrics["rollouts/total"] = self.count.rollouts
        metrics["time/eval"] = time.perf_counter() - started
        metrics = self._agreed(metrics)
        self.count.eval, self.count.eval_step = metrics, step
        self._log(metrics)

    def _progress(self, step: int) -> Progress:
        count = self.count
        return Progress(
            step=step,
            steps=self.train.steps,
            rollouts=count.rollouts,
            metrics=count.metrics,
            eval=count.eval,
            eval_step=count.eval_step,
        )

    def _figures(self, batch: TrainBatch, phase: Phase, step: int) -> dict[str, float]:
        count, anchor = self.count, self.parts.anchor
        out = data_metrics(batch, step) | staleness(batch, step) | dict(batch.metrics)
        out |= self.s.collector.supply.metrics()
        out |= {
            "rollouts/total": count.rollouts,
            "rollouts/tokens": count.tokens,
            "buffer/size": len(self.s.buffer),
            "buffer/reuse_mean": count.trained / max(1, count.rollouts),
            "schedule/phase": count.phases.index(phase.name),
            "schedule/rebirths": count.rebirths,
            "schedule/stage": count.stage,
        }
        out |= {f"buffer/{name}": value for name, value in self.s.buffer.stats().items()}
        out |= {f"schedule/{name}": value for name, value in count.values.items()}
        weights = anchor.weights(step)
        return out | {f"anchor/weight_{name}": weights[name] for name in anchor.references(step)}

    def _times(self, total: float, batch: TrainBatch) -> dict[str, float]:
        out = {f"time/{name}": self.seconds[name] for name in TIMERS} | {"time/step": total}
        out["throughput/tokens_per_s"] = int(batch.tokens.lengths.sum()) / total
        out["memory/peak_mb"] = peak_memory_mb(self.s.policy.device)
        return out | {"run/processes": self.processes.count}

    @contextmanager
    def _timed(self, name: str) -> Generator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Log what was done up to now."""
        self.s.folder.log(self.count.done, metrics)
        for tracker in self.s.trackers.values():
            tracker.log(self.count.done, metrics)

    def _say(self, line: str) -> None:
        """Tell the user."""
        for tracker in self.s.trackers.values():
            tracker.message(line)

    def save(self, *, needed: bool) -> None:
        """Write checkpoint-<step> and remove the oldest ones beyond checkpoint.keep.

        One that cannot be written ends the run if checkpoint.on_error says so, or if it is needed:
        the last one, without which the work since the one before would be lost.
        """
        config, count = self.s.config.checkpoint, self.count
        before = count.best, count.best_step
        if count.eval_step == count.done and count.eval["eval/pass@1"] >= (count.best or 0.0):
            count.best, count.best_step = count.eval["eval/pass@1"], count.done
        failure = self._write()
        if failure is not None:
            count.best, count.best_step = before
            line = (
                f"checkpoint-{count.done} could not be written ({failure}); those before it stay."
            )
            if needed or config.on_error == "stop":
                raise UserError(line + " Make room and go on with resume=auto.")
            self._say(line)

    def _write(self) -> str | None:
        """Write a checkpoint and remove old ones; returns why it could not be written, if so."""
        keep, best = self.s.config.checkpoint.keep, self.count.best_step
        path, failure = self.s.folder.path, ""
        try:
            state = self._state()
        except OSError as error:
            if self.processes.count > 1:  # the others count on what could not be written
                raise
            state, failure = {}, reason_of(error)

        weights = None
        if self.processes.divides_weights:
            weights = self.s.policy.weights(kept=self.processes.is_first)

        def fill(folder: Path) -> None:
            self._fill(folder, state, weights)

        def write_all() -> str | None:
            if failure:
                return failure
            try:
                write_checkpoint(path, self.count.done, fill)
            except CheckpointError as error:
                return str(error)
            prune(path, keep, best)
            return None

        return self.processes.first(write_all)

    def _fill(self, folder: Path, state: State, weights: State | None) -> None:
        """Write what a checkpoint holds."""
        self.s.describe(folder)
        self.s.policy.model.save_pretrained(folder, state_dict=weights)
        self.s.policy.tokenizer.save_pretrained(folder)
        (folder / "state").mkdir()
        for name, tree in state.items():
            save_tree(folder / "state" / name, tree)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; the policy's weights have been loaded from it already."""
        files = (checkpoint / "state").glob("*.json")
        state = {path.stem: load_tree(path.with_suffix("")) for path in files}
        self.count = load_counters(checkpoint)
        self.updater.load_state_dict(state["updater"])
        self.s.prompts.load_state_dict(state["prompts"])
        self.s.collector.supply.load_state_dict(state["supply"], self.s.prompts)
        self.s.buffer.load_state_dict(state["buffer"])
        self.s.schedule.load_state_dict(state["schedule"])
        for name, part in self._others().items():
            part.load_state_dict(state["parts"][name])
        self.parts.anchor.restore(self.s.policy, state["anchor"])
        for name, value in self.count.values.items():
            self._set_field(name, value)
        load_rng_state(state["rng"])
        self.lag.load_state_dict(state["lag"], self.count.step + 1)

    def _others(self) -> dict[str, Part[Any]]:
        """Parts that keep their state like any other: the loss, the advantage, the rewards."""
        named = {n: p for n, p in self.s.sections.items() if n not in ("buffer", "anchor")}
        rewards = self.s.collector.rewards.rewards
        return named | {f"reward.{name}": reward for name, reward in rewards.items()}

    def _state(self) -> dict[str, dict[str, Any]]:
        return {
            "counters": asdict(self.count),
            "updater": self.updater.state_dict(),
            "prompts": self.s.prompts.state_dict(),
            "schedule": self.s.schedule.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._others().items()},
            "anchor": self.parts.anchor.state_dict(),
            "rng": rng_state(),
            "lag": self.lag.state_dict(),
            "supply": self.s.collector.supply.state_dict(),
            # last: it may write, in the first process alone, and the others must not wait for more
            "buffer": self.s.buffer.state_dict(),
        }
