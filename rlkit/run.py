"""`python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex`: compose, validate, train."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlkit.compose import SINGLE, Composition, close, components, compose, describe, open_session
from rlkit.errors import UserError
from rlkit.folder import RunFolder
from rlkit.hydra_groups import configs_folder, import_before_compose
from rlkit.messages import MAPPED, one_line
from rlkit.report import write_report
from rlkit.trainer import Session, Trainer

USER_ERROR = 2


def train(raw: dict[str, Any], overrides: Sequence[str]) -> Path:
    """Run a composed configuration to its end and return the run's folder."""
    c = compose(raw)
    folder = RunFolder(Path(c.config.output_dir))
    console = c.trackers["console"]
    for line in describe(c):
        console.message(line)
    if c.config.dry_run:
        return folder.path
    checkpoint = folder.find_checkpoint(c.config.resume)
    session = open_session(c, checkpoint)
    try:
        _train_session(c, session, overrides, checkpoint)
    finally:
        close(c)
    return folder.path


def _train_session(
    c: Composition, session: Session, overrides: Sequence[str], checkpoint: Path | None
) -> None:
    folder, console = session.folder, session.trackers["console"]
    trainer = Trainer(session)
    if checkpoint is not None:
        trainer.load(checkpoint)
    if trainer.count.step >= c.config.train.steps:
        console.message(f"{folder.path} is finished: {trainer.count.step} steps are done.")
        return
    failed = True
    try:
        folder.open(c.raw, overrides, components(c), trainer.count.step)
        ids = folder.tracker_ids()
        for name, tracker in c.trackers.items():
            run_id = tracker.start(str(folder.path), c.raw, ids.get(name))
            ids |= {name: run_id} if run_id is not None else {}
        folder.save_tracker_ids(ids)
        trainer.run()
        failed = False
    finally:
        for tracker in c.trackers.values():
            tracker.close(failed=failed)
    before, after = folder.first_and_last("eval/pass@1")
    print(
        f"Done: {trainer.count.step} steps, {trainer.count.rollouts} responses, held-out pass@1 "
        f"{before:.3f} -> {after:.3f}. Report: {write_report(folder.path)}"
    )


def job(config: DictConfig) -> None:
    """One Hydra job. A user's mistake leaves here, before Hydra can add lines of its own to it."""
    status = guarded(lambda: _job(config))
    if status:
        sys.exit(status)


def _job(config: DictConfig) -> None:
    state = HydraConfig.get()
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for kind in SINGLE:
        chosen = [o.partition("=")[2] for o in state.overrides.task if o.startswith(f"{kind}=")]
        if not isinstance(state.runtime.choices.get(kind), str):
            raise UserError(f"{kind}={chosen[-1]} is not valid: choose exactly one {kind}")
    if state.mode == RunMode.MULTIRUN:
        raw["output_dir"] = str(Path(raw["output_dir"]) / str(state.job.num))
    train(raw, list(state.overrides.task))


def guarded(call: Callable[[], None]) -> int:
    """Run `call`; a user's mistake becomes one line and status 2."""
    if os.environ.get("RLKIT_DEBUG"):
        call()
        return 0
    try:
        call()
        sys.stdout.flush()
    except MAPPED as error:
        print(f"rlkit: {one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def main() -> int:
    """The command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them

    def call() -> None:
        sys.argv[1:] = import_before_compose(sys.argv[1:])
        hydra.main(version_base=None, config_path=str(configs_folder()), config_name="config")(
            job
        )()

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main())
