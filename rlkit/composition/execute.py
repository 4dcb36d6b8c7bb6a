"""Running a composed configuration: from a dry run to the last stage's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.composition.base_model import check_model
from rlkit.composition.budget import budget
from rlkit.composition.chosen import told_to_trackers
from rlkit.composition.compose import NOTHING, compose
from rlkit.composition.composition import Composition, Given
from rlkit.composition.describe import components, describe
from rlkit.composition.rehearsal import rehearse
from rlkit.composition.session import RunScope, close, close_models, open_session
from rlkit.composition.unread import unread
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.environments.journal import new_start
from rlkit.errors import UserError, counted
from rlkit.models.memory import ELSEWHERE, explained
from rlkit.models.numerics import numerics
from rlkit.pages.report import REPORT, write_report
from rlkit.runs.generators import seed_generators
from rlkit.runs.resume import check_config, check_forced, check_sources, flat
from rlkit.runs.stopping import Stopped, resume_command, stop_on_signals
from rlkit.training.counters import load_counters
from rlkit.training.state import Session
from rlkit.training.trainer import Trainer


def execute(
    raw: dict[str, Any],
    overrides: Sequence[str],
    stages: Sequence[dict[str, Any]] = (),
    processes: Processes = SINGLE,
    given: Given = NOTHING,
) -> Path:
    """Run a composed configuration to its end and return the run's folder.

    `stages`, each composed too, are run instead, one after the other, if given. `given` holds
    objects passed in place of names. Raises Stopped if the run was asked to stop before its end.
    """
    whole = compose(raw, processes, given)
    parts = [compose(stage, processes, given) for stage in stages] or [whole]
    run = Run(whole, parts, overrides)
    new_start()
    for number, part in enumerate(parts, start=1):
        if stages:
            whole.say(f"Stage {number} of {len(parts)}")
        for line in describe(part):
            whole.say(line)
    for line in unread(parts, overrides):
        whole.say(line)
    if whole.config.dry_run:
        try:
            run.rehearse(dry=True)
        finally:
            run.folder.unlock()
        for line in budget(parts):
            whole.say(line)
        return run.folder.path
    try:
        with numerics(whole.config.model), explained(ELSEWHERE):
            run.begin_or_resume()
    finally:
        for part in parts:
            close(part)
        run.folder.discard_if_untrained()
        run.folder.unlock()
    return run.folder.path


class Run:
    """A run of one or more stages, in one run folder."""

    trainer: Trainer
    """Of the stage that trains; the only reference to it, so that its optimizers go with it."""

    def __init__(
        self, whole: Composition, parts: Sequence[Composition], overrides: Sequence[str]
    ) -> None:
        self.whole, self.parts, self.overrides = whole, parts, overrides
        self.is_main = whole.processes.is_main
        self.steps = sum(part.config.train.steps for part in parts)
        self.scope = RunScope.of(whole, parts, whole.say)
        self.folder = self.scope.folder

    def begin_or_resume(self) -> None:
        """Train from the checkpoint that `resume` names, or from the start."""
        whole = self.whole
        checkpoint, first = self.rehearse(dry=False)
        self.trainer = Trainer(
            self._told(open_session(self.parts[first], self.scope, checkpoint, stage=first))
        )
        with stop_on_signals(self.scope.stop, whole.say):
            if checkpoint is not None:
                self.trainer.state.load(checkpoint)
            done = self.trainer.count.done
            if done >= self.steps:
                self._finished(done)
                return
            if checkpoint is not None:
                whole.say(f"Resumed from step {done} of {self.steps}: {checkpoint}")
            self._conclude(complete=self._tracked(done))

    def rehearse(self, *, dry: bool) -> tuple[Path | None, int]:
        """Check what can be checked before a model is loaded; returns what `_beginning` does.

        A dry run downloads and writes nothing.
        """
        checkpoint, first = self._beginning()
        for part in self.parts[first:]:
            if checkpoint is None:
                check_model(part)
            rehearse(part, dry=dry)
        return checkpoint, first

    def _beginning(self) -> tuple[Path | None, int]:
        """The checkpoint that the run continues from, if any, and the place of the first stage."""
        whole = self.whole
        whole.processes.on_main(self.folder.check_place)
        checkpoint = whole.processes.on_main(
            lambda: self.folder.find_checkpoint(whole.config.resume)
        )
        for line in self.folder.notes:
            whole.say(line)
        if checkpoint is not None:
            check_config(checkpoint, whole.raw, whole.defaults, whole.restored)
            check_sources(checkpoint, self.scope.sources, whole.config.resume_force)
        else:
            check_forced(whole.config.resume_force, flat(whole.raw))
        seed_generators(whole.config.seed)  # a reward that draws does so from the seed here too
        return checkpoint, 0 if checkpoint is None else load_counters(checkpoint).stage

    def _finished(self, done: int) -> None:
        """Do what a run killed after its last checkpoint left undone, and say that it is done."""
        self.folder.tidy()
        line = f"{self.folder.path} is finished: {done} steps are done."
        if self.is_main and not (self.folder.path / REPORT).exists():
            line += f" {self._report()}"
        self.whole.say(line)

    def _told(self, session: Session) -> Session:
        """The session, of whose data the user is told what became."""
        for line in session.notes:
            self.whole.say(line)
        return session

    def _tracked(self, done: int) -> bool:
        """Train with the folder open and the trackers running; returns what `_train` does."""
        whole, failed = self.whole, True
        raw = {**whole.raw, "train": {**whole.raw["train"], "steps": self.steps}}
        stages = () if self.parts[0] is whole else self.parts
        used = components_of_stages(stages) if stages else components(whole)
        told = told_to_trackers(raw, self.overrides, [stage.raw for stage in stages])
        try:
            for line in self.folder.open(raw, self.overrides, used, done):
                whole.say(line)
            self._start_trackers(told, done)
            complete = self._train()
            failed = False
        finally:
            for tracker in whole.trackers.values():
                tracker.close(failed=failed)
        return complete

    def _start_trackers(self, raw: Mapping[str, Any], step: int) -> None:
        ids = self.folder.tracker_ids()
        for name, tracker in self.whole.trackers.items():
            run_id = tracker.start(str(self.folder.path), raw, ids.get(name))
            tracker.begin(step)
            ids |= {name: run_id} if run_id is not None else {}
        self.folder.save_tracker_ids(ids)

    def _train(self) -> bool:
        """Train stage after stage; returns whether the last one reached its end."""
        complete = self.trainer.run()
        first = self.trainer.count.stage + 1
        for stage, part in enumerate(self.parts[first:] if complete else (), start=first):
            close_models(self.parts[stage - 1])
            policy = self.trainer.session.policy
            opened = self._told(open_session(part, self.scope, policy=policy, stage=stage))
            self.trainer = self.trainer.next_stage(opened)
            complete = self.trainer.run()
            if not complete:
                break
        return complete

    def _conclude(self, *, complete: bool) -> None:
        """Report how the run went. Raises Stopped if it stopped before its end."""
        trainer = self.trainer
        if complete and self.is_main:
            before, after = self.folder.first_and_last("eval/pass@1")
            print(
                f"Done: {counted(trainer.count.done, 'step')}, {trainer.count.rollouts} responses, "
                f"held-out pass@1 {before:.3f} -> {after:.3f}. {self._report()}"
            )
        if complete:
            return
        asked = next(filter(None, self.whole.processes.all_gather(self.scope.stop.number)))
        if self.is_main:
            config, world_size = self.whole.config, self.whole.processes.world_size
            print(
                f"Stopped after step {trainer.count.done} of {self.steps}, saved. To continue: "
                + resume_command(self.overrides, config.output_dir, world_size)
            )
        raise Stopped(asked)

    def _report(self) -> str:
        """Write the page; where it is, or why there is none: the run is done all the same."""
        try:
            return f"Report: {write_report(self.folder.path)}"
        except UserError as error:
            return f"No report: {error}"


def components_of_stages(parts: Sequence[Composition]) -> dict[str, Any]:
    """`components` of every stage, under names like "loss (stage 2)"."""
    return {
        f"{section} (stage {number})": found
        for number, part in enumerate(parts, start=1)
        for section, found in components(part).items()
    }
