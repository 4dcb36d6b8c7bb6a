"""The training loop, written once. Nothing in it knows an algorithm's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import Phase, Progress
from rlkit.rewards.weights import restated
from rlkit.rollout.source import StepPlan
from rlkit.training.clock import TIMERS, Clock
from rlkit.training.collect import Collected
from rlkit.training.completions import Steps, groups_kept, write_responses
from rlkit.training.counters import Counters
from rlkit.training.metrics import data_metrics, peak_memory_mb, scheduled, staleness
from rlkit.training.prepare import TrainBatch, prepare
from rlkit.training.saving import try_save
from rlkit.training.state import Session, TrainState
from rlkit.training.tracked import track_samples
from rlkit.training.update import Updater, UpdateResult


class Trainer:
    """Runs the loop of a session, which may be a stage of a run."""

    def __init__(
        self, session: Session, count: Counters | None = None, previous: Updater | None = None
    ) -> None:
        self.session = session
        self.train, self.parts = session.config.train, session.parts
        self.state = TrainState(session, count or Counters(), previous)
        self.clock = Clock(session.policy.device)

    @property
    def count(self) -> Counters:
        """What the run has done so far."""
        return self.state.count

    def next_stage(self, session: Session) -> Trainer:
        """The trainer of the next stage's session, on the same policy."""
        return Trainer(session, self.count.next_stage(), self.state.updater)

    def run(self) -> bool:
        """Train from where the counters stand to the last step of the stage.

        Returns whether it got there; otherwise the session was asked to stop, and a checkpoint
        holds what was done.
        """
        evaluation = self.session.config.eval.every
        checkpoint = self.session.config.checkpoint.every
        if self.count.step == 0:
            self.parts.anchor.rebase(self.session.policy)
            try_save(self.state)
        if self.count.done == 0:
            self._evaluate()
        for step in range(self.count.step + 1, self.train.steps + 1):
            metrics = self._train_step(step)
            self.state.advance(metrics)
            self._log(metrics)
            last, done = step == self.train.steps, self.count.done
            if last or (evaluation and done % evaluation == 0):
                self._evaluate()
            stopping = any(self.session.processes.all_gather(self.session.stop())) and not last
            if last or stopping or (checkpoint and done % checkpoint == 0):
                self.state.save(needed=last or stopping)
            if stopping:
                return False
        return True

    def _train_step(self, step: int) -> dict[str, float]:
        self.clock.restart()
        policy, anchor, buffer = self.session.policy, self.parts.anchor, self.session.buffer
        self._follow_scalars(step)
        phase = self.session.schedule.checked(self._progress(step))
        self._apply(phase)
        fresh = self._collect(phase, step)
        self.session.prompts.observe(fresh.groups)
        groups = self._build(fresh.groups, phase, step)
        batch = self._prepare(groups, fresh.groups, step)
        anchor.before_step(policy, step)
        result = self._update(batch, phase, step)
        self._keep(fresh.groups, groups, batch, result, step)
        anchor.after_step(policy, step, result.metrics)
        buffer.add(fresh.groups, step)
        buffer.observe(result.scores)
        with self.clock.timed("sync"):
            self.state.lag.sync(step + 1)
        self._tally(fresh, batch)
        metrics = {**result.metrics, **fresh.tally.metrics(), **self._metrics(batch, phase, step)}
        metrics |= self._times(self.clock.elapsed, batch)
        return self._agreed({n: value for n, value in metrics.items() if math.isfinite(value)})

    def _agreed(self, metrics: dict[str, float]) -> dict[str, float]:
        """The main process's metrics on every rank, so that schedules decide alike."""
        return self.session.processes.on_main(lambda: metrics)

    def _follow_scalars(self, step: int) -> None:
        """Set every field that follows a scalar schedule to its value of this step."""
        seen = {**self.count.metrics, **self.count.eval}
        for name, scalar in self.session.scalars.items():
            self.state.set_field(name, scalar.value(step, seen))

    def _apply(self, phase: Phase) -> None:
        """Fire the phase's events and record where the run is."""
        if "rebase" in phase.events:
            self.parts.anchor.rebase(self.session.policy)
            self.count.rebirths += 1
            self.session.say(f"Step {self.count.done + 1}: rebirth {self.count.rebirths}.")
        if "clear_buffer" in phase.events:
            self.session.buffer.clear()
        if "reset_optimizer" in phase.events:
            self.state.updater.reset()
        if phase.name not in self.count.phases:
            self.count.phases.append(phase.name)
        for name, value in phase.values.items():
            self.state.set_field(name, value)

    def _collect(self, phase: Phase, step: int) -> Collected:
        """This step's fresh groups: the buffer's plan, or new prompts alone without replay."""
        plan = StepPlan(
            buffer=self.session.buffer if phase.replay else None,
            prompts=self.session.prompts,
            groups=self.train.prompts_per_step,
            step=step,
        )
        fresh = self.session.collector.collect(plan, first_id=self.count.rollouts)
        self.clock.seconds |= fresh.seconds
        return fresh

    def _build(self, fresh: list[Group], phase: Phase, step: int) -> list[Group]:
        """What is trained: the buffer's choice, or the fresh groups alone without replay."""
        if not phase.replay:
            return fresh
        buffer, prompts = self.session.buffer, self.session.prompts
        if wanted := buffer.scores_wanted(step):
            with self.clock.timed("forward"):
                chosen = [prompts.get(sample.prompt_id) for sample in wanted]
                scores = self.state.scorer.score(wanted, chosen)
            buffer.observe(scores)
        groups = buffer.build(fresh, self.train.prompts_per_step, step)
        if not groups:
            raise UserError(f"step {step}: the buffer built an empty batch")
        return restated(groups, self.parts.rewards, self.count.values)

    def _prepare(self, groups: list[Group], fresh: list[Group], step: int) -> TrainBatch:
        with self.clock.timed("forward"):
            return prepare(groups, step, self.parts, self.state.scorer, fresh)

    def _update(self, batch: TrainBatch, phase: Phase, step: int) -> UpdateResult:
        passes = phase.updates_per_batch or self.train.updates_per_batch
        with self.clock.timed("update"):
            tokens_of = groups_kept(self.session.config.completions, self.count.offset + step)
            return self.state.updater.run(batch, passes, step, tokens_of)

    def _keep(
        self,
        fresh: list[Group],
        trained: list[Group],
        batch: TrainBatch,
        result: UpdateResult,
        step: int,
    ) -> None:
        """Keep the step's responses, as far as that is asked for."""
        done = self.count.offset + step
        self._write_completions(trained, batch, result, step)
        track_samples(self.session, trained, batch, result.scores, Steps(step, done))
        if self.session.rollout_writer is not None:
            self.session.rollout_writer.write(fresh, step, self.count.offset)

    def _write_completions(
        self, groups: Sequence[Group], batch: TrainBatch, result: UpdateResult, step: int
    ) -> None:
        """Write the step's responses, those skipped separately too; end a run that is stuck."""
        done = self.count.offset + step
        path = write_responses(self.session, groups, batch, result, Steps(step, done))
        if path is None:
            return
        updater = self.state.updater
        if updater.is_stuck:
            raise UserError(
                f"step {done}: {updater.skipped_in_a_row} updates in a row had a loss or gradient "
                f"that is not finite; lower train.learning_rate, or see their responses in {path}"
            )
        self.session.say(
            f"Step {done}: an update was not finite and was skipped; its responses are in {path}."
        )

    def _tally(self, fresh: Collected, batch: TrainBatch) -> None:
        responses, tokens = self.session.collector.source.wasted
        self.count.rollouts += fresh.tally.rollouts + responses
        self.count.tokens += fresh.tally.tokens + tokens
        self.count.trained += sum(sample.sample_id >= 0 for sample in batch.samples)

    def _evaluate(self) -> None:
        started, step = self.clock.now(), self.count.done
        with self.state.lag.current(self.count.step + 1):
            found = self.session.evaluator.run(step, self.session.progress)
        metrics = self.count.with_length_ratios(found)
        metrics["rollouts/total"] = self.count.rollouts
        metrics["time/eval"] = self.clock.now() - started
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

    def _metrics(self, batch: TrainBatch, phase: Phase, step: int) -> dict[str, float]:
        """The step's metrics from the batch, the buffer, the schedule and the anchor."""
        count, anchor, buffer = self.count, self.parts.anchor, self.session.buffer
        out: dict[str, Any] = {
            **data_metrics(batch.samples, batch.loss.replayed, step),
            **staleness(batch.samples, step),
            **batch.metrics,
            **self.session.collector.source.metrics(),
            "rollouts/total": count.rollouts,
            "rollouts/tokens": count.tokens,
            "buffer/size": len(buffer),
            "buffer/reuse_mean": count.trained / max(1, count.rollouts),
            "schedule/phase": count.phases.index(phase.name),
            "schedule/rebirths": count.rebirths,
            "schedule/stage": count.stage,
        }
        out |= {f"buffer/{name}": value for name, value in buffer.stats().items()}
        out |= {f"prompts/{name}": value for name, value in self.session.prompts.stats().items()}
        out |= scheduled(count.values)
        weights = anchor.weights(step)
        return out | {f"anchor/weight_{name}": weights[name] for name in anchor.references(step)}

    def _times(self, total: float, batch: TrainBatch) -> dict[str, float]:
        out = {f"time/{name}": self.clock.seconds[name] for name in TIMERS} | {"time/step": total}
        out["throughput/tokens_per_s"] = int(batch.tokens.lengths.sum()) / total
        out["memory/peak_mb"] = peak_memory_mb(self.session.policy.device)
        return out | {"run/processes": self.session.processes.world_size}

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Log metrics at the current step."""
        self.session.run_folder.log(self.count.done, metrics)
        for tracker in self.session.trackers.values():
            tracker.log(self.count.done, metrics)
