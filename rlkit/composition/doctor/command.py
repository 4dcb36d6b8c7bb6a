"""`rlkit doctor MODEL [overrides]`: look for what misconfigures runs, in about a minute.

The exit status is 0 without problems, 1 with any, and 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from rlkit.composition.command_parser import Parser
from rlkit.composition.config_files import search_path
from rlkit.composition.doctor.check import Check
from rlkit.composition.doctor.printed import Told
from rlkit.composition.guard import guarded
from rlkit.composition.model_path import check_exists
from rlkit.config.overrides import key_of, quoted
from rlkit.config.run import EMBEDDED
from rlkit.distributed.rank import launched
from rlkit.errors import UserError
from rlkit.runs.checkpoint import newest_in

SECONDS = 60.0
PROBLEMS = 1
"""The exit status if there are problems."""
ALONE = {"mode": "sync", "sync_every": 1, "oversample": 0.0}
"""How the engine is examined, however the run uses it: in turn with the trainer."""


def parser() -> Parser:
    """The command line."""
    out = Parser(
        prog="rlkit doctor",
        description="Look for what misconfigures runs: model, prompts, template, reward, engine, "
        "endings, groups, a step at learning rate 0, memory and speed.",
    )
    out.add_argument("model", help="a name or folder, a checkpoint, a run folder, or embedded")
    out.add_argument(
        "overrides", nargs="*", default=[], help="as for training: task=jsonl task.path=..."
    )
    out.add_argument("--engine", help="short for rollout=..., for example --engine vllm")
    out.add_argument("--json", action="store_true", help="print one JSON object instead")
    out.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="about how long to generate and train, beside loading (default 60)",
    )
    out.add_argument("--config-dir", help="a folder with algorithm/, experiment/, ... of your own")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    found: list[Check] = []

    def call() -> None:
        a = parser().parse_intermixed_args(given)
        if a.seconds <= 0:
            raise UserError(f"--seconds {a.seconds:g} leaves no time; give some, such as 60")
        if launched()[1] > 1:
            raise UserError("the doctor works in one process: start it without a launcher")
        engine = [f"rollout={a.engine}"] if a.engine else []
        overrides = [*engine, *a.overrides]
        found.extend(run(a, overrides))

    status = guarded(call)
    return status or (PROBLEMS if any(check.verdict == "problem" for check in found) else 0)


def run(a: argparse.Namespace, overrides: Sequence[str]) -> list[Check]:
    """Examine, and print what is found."""
    check_exists(a.model)
    name = newest_in(a.model)
    raw, asks = configuration(name, overrides, search_path(a.config_dir))

    from rlkit.composition.compose import compose
    from rlkit.composition.doctor.examine import examine
    from rlkit.composition.doctor.patient import Patient
    from rlkit.composition.session import close
    from rlkit.models.numerics import numerics

    if raw.get("environment") or raw.get("tools"):
        raise UserError(
            "the doctor examines responses of one turn: leave environment= and tools= out; for a "
            "checkpoint of a run with them add environment=null tools=[] and a reward=[...]"
        )
    c = compose(alone(raw))
    beside = raw["rollout"].get("mode", ALONE["mode"]) != ALONE["mode"]
    told = Told(name, overrides, quiet=a.json, about=a.seconds)
    try:
        with numerics(c.config.model):
            for check in examine(Patient(c, a.seconds, beside=beside)):
                told.add(check)
    finally:
        close(c)
    task = None if asks else str(raw["task"]["name"])
    told.conclude(task)
    return told.checks


def configuration(
    name: str, overrides: Sequence[str], search: Sequence[str]
) -> tuple[dict[str, Any], bool]:
    """The configuration to examine a model with, and whether it says what to train on.

    A checkpoint brings its run's task, rewards, rollout and precision as defaults. Another model
    without a task gets the lengths of real models.
    """
    from rlkit.composition.saved import choices, saved_config, with_saved

    saved = saved_config(name, overrides)
    own = {"task", "experiment"} & {*map(key_of, overrides)}
    asks = name == EMBEDDED or saved is not None or bool(own)
    chosen = choices(saved, overrides) if saved is not None else [] if asks else usual_lengths()
    raw = settings([*search, f"model.name={quoted(name)}", "output_dir=.", *chosen, *overrides])
    return (raw if saved is None else with_saved(raw, saved, overrides)), asks


def usual_lengths() -> list[str]:
    """The lengths of real models, which the embedded model's task would replace by its own."""
    from rlkit.rollout.base import RolloutConfig

    usual = RolloutConfig()
    names = ("max_prompt_length", "max_completion_length")
    return [f"rollout.{name}={getattr(usual, name)}" for name in names]


def settings(given: Sequence[str]) -> dict[str, Any]:
    """The configuration to examine, of the first stage if there are several."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    from rlkit.composition.api import composed, stages_of

    raw = composed(given)
    stages = stages_of(raw, given)
    return stages[0] if stages else raw


def alone(raw: dict[str, Any]) -> dict[str, Any]:
    """The configuration with an engine that works in turn with the trainer."""
    rollout = raw["rollout"]
    return raw | {"rollout": rollout | {key: ALONE[key] for key in ALONE if key in rollout}}
