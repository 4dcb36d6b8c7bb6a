"""`python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex`: compose, validate, train."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlkit.composition.budget import account
from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.describe import components, describe
from rlkit.composition.error_messages import MAPPED, one_line
from rlkit.composition.hydra_groups import configs_folder, import_before_compose
from rlkit.composition.session import close, open_session
from rlkit.composition.stages import stage_configs
from rlkit.distributed.launch import close_processes, launched, open_processes
from rlkit.distributed.processes import ALONE, Processes
from rlkit.errors import UserError
from rlkit.plugins import SINGLE
from rlkit.runs.folder import RunFolder
from rlkit.runs.report import write_report
from rlkit.runs.resume import check_config, save_config
from rlkit.runs.stopping import StopRequest, resume_command, stop_on_signals
from rlkit.training.state import Session, load_counters
from rlkit.training.trainer import Trainer

USER_ERROR = 2
PATIENCE = 5.0
"""Seconds that a later process waits before it tells of an error, which the first may tell too."""
INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C ended."""


def train(
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


def job(config: DictConfig) -> None:
    """One Hydra job. A user's mistake leaves here, before Hydra can add lines of its own to it."""
    try:
        status = guarded(lambda: _job(config))
    except Stopped:
        close_processes()
        sys.exit(0)  # ends a sweep too
    if status:
        sys.exit(status)


def _job(config: DictConfig) -> None:
    state = HydraConfig.get()
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for kind in SINGLE:
        chosen = [o.partition("=")[2] for o in state.overrides.task if o.startswith(f"{kind}=")]
        if not isinstance(state.runtime.choices.get(kind), str):
            raise UserError(f"{kind}={chosen[-1]} is not valid: choose exactly one {kind}")
    processes = open_processes((raw.get("model") or {}).get("device", "auto"))
    raw["output_dir"] = processes.first(lambda: raw["output_dir"])  # the clock may be in it
    if state.mode == RunMode.MULTIRUN:
        raw["output_dir"] = str(Path(raw["output_dir"]) / str(state.job.num))
    overrides = list(state.overrides.task)
    train(raw, overrides, list(stage_configs(raw, overrides)), processes)


class Stopped(Exception):
    """The run was asked to stop, and did."""


def guarded(call: Callable[[], None]) -> int:
    """Run `call`; a user's mistake becomes one line and status 2."""
    if os.environ.get("RLKIT_DEBUG"):
        call()
        return 0
    try:
        call()
        sys.stdout.flush()
    except MAPPED as error:
        return leave(one_line(error))
    except KeyboardInterrupt:
        line = "rlkit: stopped at once; go on from the last checkpoint: resume=auto"
        if launched()[0] == 0:
            print(line, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def leave(line: str) -> int:
    """Tell the user what is wrong, once; of several processes the first does, if it knows too."""
    rank, count = launched()
    if rank > 0:
        time.sleep(PATIENCE)  # the launcher ends this process meanwhile, if another one has failed
        line = f"(process {rank}) {line}"
    print(f"rlkit: {line}", file=sys.stderr, flush=True)
    if count > 1:
        os._exit(USER_ERROR)  # the others may wait for this one, and would not let it go
    return USER_ERROR


def main() -> int:
    """The command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them

    def call() -> None:
        sys.argv[1:] = import_before_compose(sys.argv[1:])
        hydra.main(version_base=None, config_path=str(configs_folder()), config_name="config")(
            job
        )()

    status = guarded(call)
    close_processes()
    return status


if __name__ == "__main__":
    sys.exit(main())
