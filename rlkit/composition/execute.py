"""Running a composed configuration: from a dry run to the last stage's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlkit.composition.budget import account
from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.describe import components, describe
from rlkit.composition.session import close, open_session
from rlkit.distributed.processes import ALONE, Processes
from rlkit.runs.folder import RunFolder
from rlkit.runs.report import write_report
from rlkit.runs.resume import check_config, save_config
from rlkit.runs.stopping import Stopped, StopRequest, resume_command, stop_on_signals
from rlkit.training.state import Session, load_counters
from rlkit.training.trainer import Trainer


def execute(
    raw: dict[str, Any],
    overrides: Sequence[str],
    stages: Sequence[dict[str, Any]] = (),
    processes: Processes = ALONE,
) -> Path:
    """Run a composed configuration to its end and return the run's folder.

    With `stages`, each composed too, they are run in its place, one after the other.
    """
    whole = compose(raw, processes)
    parts = [compose(stage, processes) for stage in stages] or [whole]
    folder = RunFolder(Path(whole.config.output_dir), writes=processes.is_first)
    say = whole.say
    for number, part in enumerate(parts, start=1):
        if stages:
            say(f"Stage {number} of {len(parts)}")
        for line in describe(part):
            say(line)
    if whole.config.dry_run:
        for line in account(parts):
            say(line)
        return folder.path
    try:
        _continue_or_begin(whole, parts, folder, overrides)
    finally:
        for part in parts:
            close(part)
        folder.unlock()
    return folder.path


def _continue_or_begin(
    whole: Composition, parts: Sequence[Composition], folder: RunFolder, overrides: Sequence[str]
) -> None:
    checkpoint = whole.processes.first(lambda: folder.find_checkpoint(whole.config.resume))
    for note in folder.notes:
        whole.say(note)
    if checkpoint is not None:
        check_config(checkpoint, whole.raw)
    first = load_counters(checkpoint).stage if checkpoint is not None else 0
    session = open_session(parts[first], checkpoint)
    session.folder = folder
    request = StopRequest()
    session.stop = request
    session.describe = lambda path: save_config(path, whole.raw)
    with stop_on_signals(request, whole.say):
        _train_stages(whole, parts, session, overrides, checkpoint)


def components_of_stages(parts: Sequence[Composition]) -> dict[str, Any]:
    """`components` of every stage, under names like "loss (stage 2)"."""
    return {
        f"{section} (stage {number})": found
        for number, part in enumerate(parts, start=1)
        for section, found in components(part).items()
    }


def _train_stages(
    whole: Composition,
    parts: Sequence[Composition],
    session: Session,
    overrides: Sequence[str],
    checkpoint: Path | None,
) -> None:
    folder, first = session.folder, whole.processes.is_first
    session.trackers = whole.trackers
    trainer = Trainer(session)
    if checkpoint is not None:
        trainer.load(checkpoint)
    steps = sum(part.config.train.steps for part in parts)
    if trainer.count.done >= steps:
        whole.say(f"{folder.path} is finished: {trainer.count.done} steps are done.")
        return
    raw = {**whole.raw, "train": {**whole.raw["train"], "steps": steps}}
    used = components(whole) if parts[0] is whole else components_of_stages(parts)
    failed = True
    try:
        folder.open(raw, overrides, used, trainer.count.done)
        ids = folder.tracker_ids()
        for name, tracker in whole.trackers.items():
            run_id = tracker.start(str(folder.path), raw, ids.get(name))
            ids |= {name: run_id} if run_id is not None else {}
        folder.save_tracker_ids(ids)
        complete = trainer.run()
        for part in parts[trainer.count.stage + 1 :] if complete else ():
            session.engine.close()  # its memory is the next stage's
            session = next_session(session, part)
            trainer = Trainer(session, trainer.count.next_stage())
            complete = trainer.run()
            if not complete:
                break
        failed = False
    finally:
        for tracker in whole.trackers.values():
            tracker.close(failed=failed)
    if complete and first:
        before, after = folder.first_and_last("eval/pass@1")
        print(
            f"Done: {trainer.count.done} steps, {trainer.count.rollouts} responses, held-out "
            f"pass@1 {before:.3f} -> {after:.3f}. Report: {write_report(folder.path)}"
        )
    if not complete and first:
        print(
            f"Stopped after step {trainer.count.done} of {steps}, saved. To go on: "
            + resume_command(overrides, whole.config.output_dir, whole.processes.count)
        )
    if not complete:
        raise Stopped


def next_session(session: Session, part: Composition) -> Session:
    """The session of the next stage, on the policy of the one before and in the same run."""
    following = open_session(part, None, session.policy)
    for name in ("folder", "trackers", "stop", "describe"):
        setattr(following, name, getattr(session, name))
    return following
