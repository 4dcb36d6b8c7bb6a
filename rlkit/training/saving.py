"""What a checkpoint writes, and a trial of it before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlkit.errors import UserError
from rlkit.interfaces import State
from rlkit.models.generation import mend_generation_config
from rlkit.runs.checkpoint import check_tree, reason_of
from rlkit.runs.resume import save_config

if TYPE_CHECKING:
    from rlkit.training.state import Session, TrainState

TRIAL = ".checkpoint-trial.tmp"
"""Where the trial writes, in the run folder."""


def write_model(session: Session, folder: Path, weights: State | None) -> None:
    """Write the configuration, the model and the tokenizer; `weights` None = the model's own."""
    save_config(folder, session.raw, session.sources)
    mend_generation_config(session.policy.model)
    session.policy.model.save_pretrained(folder, state_dict=weights)
    session.policy.tokenizer.save_pretrained(folder)


def try_save(state: TrainState) -> None:
    """Write a checkpoint without tensors and remove it: what cannot be saved is found at once.

    Every rank must call it. Raises UserError if something can never be saved. A disk that refuses
    is no such thing: checkpoint.on_error says what to do then.
    """
    session = state.session
    try:
        trees = state.state_dict()
    except Exception as error:
        raise _unsaved(error) from error
    failure = session.processes.on_main(lambda: _try(session, trees))
    if failure is None:
        return
    line = f"a trial checkpoint could not be written ({failure})."
    if session.config.checkpoint.on_error == "stop":
        raise UserError(line)
    session.say(line[0].upper() + line[1:])


def _try(session: Session, trees: Mapping[str, State]) -> str | None:
    """Write and remove the trial; returns why the disk refuses, if it does."""
    folder = session.run_folder.path / TRIAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(session, folder, {})
        for name, tree in trees.items():
            check_tree(name, tree)
    except OSError as error:
        return reason_of(error)
    except Exception as error:
        raise _unsaved(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _unsaved(error: Exception) -> UserError:
    return UserError(
        f"no checkpoint of this run could be saved ({reason_of(error)}); nothing was trained"
    )
