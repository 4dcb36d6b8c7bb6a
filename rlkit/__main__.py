"""The commands: `python -m rlkit train|list|show|check|eval|merge|serve|report`.

What imports torch is imported where it is used, so that the others answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rlkit.composition.benchmark_options import SWITCHES, add_options, options_of, valued_flags
from rlkit.composition.config_files import config_folders
from rlkit.composition.guard import guarded
from rlkit.composition.show import list_options, show
from rlkit.errors import UserError, suggest, with_article
from rlkit.plugins import KINDS, import_plugin
from rlkit.registry import check_kind, entry, from_import_path, names
from rlkit.runs.report import compare_report, write_report
from rlkit.runs.resume import CONFIG

CONFIG_DIR, OUT = "--config-dir", "--out"


def check(path: str, kind: str | None) -> None:
    """Run the contract kit on a user's part, given as pkg.mod:Class or ./file.py:Class."""
    from rlkit.testing import check_part

    module = import_plugin(path.rpartition(":")[0])
    cls = getattr(module, path.rpartition(":")[2], None)
    if cls is None:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(f"{path} does not exist.{suggest(path.rpartition(':')[2], known)}")
    guessed = kind or next(
        (k for k in KINDS if any(entry(k, n).cls is cls for n in names(k))), None
    )
    if guessed is None:
        raise UserError(
            f"{path} is not registered; say what it is with --kind (one of {', '.join(KINDS)})"
        )
    check_kind(guessed)
    try:
        for passed in check_part(guessed, from_import_path(guessed, path).cls()):
            print(f"ok  {passed}")
    except AssertionError as error:
        raise UserError(
            f"{path} breaks the contract of {with_article(guessed)}: {error}"
        ) from error


def evaluate(a: argparse.Namespace) -> None:
    """Evaluate on named benchmarks if there are any; else on a task: the figures as JSON."""
    options, overrides = options_of(a, a.overrides)
    if options.wanted:
        from rlkit.composition.benchmark_plan import Plan
        from rlkit.composition.evaluate import configuration
        from rlkit.composition.on_benchmarks import evaluate_on

        raw, _ = configuration(a.checkpoint, overrides, a.config_dir, on_task=False)
        evaluate_on(raw, Plan.of(options, names("task")))
    else:
        from rlkit.composition import evaluate as evaluation

        found = evaluation.evaluate(a.checkpoint, overrides, a.config_dir, a.out)
        print(json.dumps(found, indent=1))


def merge(checkpoint: str, out: str) -> None:
    """Merge a checkpoint's adapters into its model and write a plain model folder."""
    from rlkit.runs.checkpoint import newest_in

    folder = Path(newest_in(checkpoint))
    try:
        raw = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint} is not a run's checkpoint: {CONFIG} is missing") from error
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{checkpoint} has no adapters to merge; it is already a plain model folder"
        )

    from rlkit.composition.compose import compose
    from rlkit.composition.session import close, model_folder
    from rlkit.models.generation import mend_generation_config
    from rlkit.models.load import load_policy
    from rlkit.models.lora import save_merged

    c = compose(raw)
    try:
        policy = load_policy(c.config.model, model_folder(c), 1.0, adapter=folder)
    finally:
        close(c)
    if changed := mend_generation_config(policy.model):
        print(changed, file=sys.stderr)
    save_merged(policy.model, Path(out))
    policy.tokenizer.save_pretrained(out)
    print(out)


def report(folders: Sequence[str], out: str | None) -> None:
    """Write the report of one run, or one that compares several."""
    paths = [Path(folder) for folder in folders]
    if len(paths) == 1:
        print(write_report(paths[0]))
    else:
        print(compare_report(paths, Path(out or "comparison.html")))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="rlkit", description="Train, and what belongs to it.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="a run, as `python -m rlkit.run`: see train --help")
    one = commands.add_parser("list", help="what can be chosen: parts, compositions, experiments")
    one.add_argument("kind", nargs="?", help="loss, buffer, ..., algorithm or experiment")
    add_config_dir(one)
    one = commands.add_parser(
        "show",
        help="a part's settings, bounds, documentation and source; what a composition chooses",
    )
    one.add_argument("kind", help="loss, buffer, ..., algorithm or experiment")
    one.add_argument("name")
    add_config_dir(one)
    one = commands.add_parser("check", help="the contract kit on your own part")
    one.add_argument("path", help="pkg.mod:Class or ./file.py:Class")
    one.add_argument("--kind")
    one = commands.add_parser(
        "eval",
        help="evaluate a checkpoint, a run's newest one or a model",
        description="Evaluate a checkpoint by its run's settings, or a model on a task or on named "
        "benchmarks. A table goes to stderr, the figures to stdout as JSON, and every answer to a "
        "folder; see docs/evaluation.md.",
    )
    one.add_argument("checkpoint", help="a checkpoint, a run folder, or a model's name or folder")
    one.add_argument("overrides", nargs="*", help="as for training: task=..., eval.problems=...")
    one.add_argument(OUT, help="the folder for answers and figures (default evals/<name>)")
    add_config_dir(one)
    add_options(one)
    one = commands.add_parser("merge", help="a plain model folder from a checkpoint with adapters")
    one.add_argument("checkpoint")
    one.add_argument("out", help="the folder to write")
    commands.add_parser("serve", help="a vLLM server for rollout=vllm_server")
    one = commands.add_parser("report", help="report.html of a run, or a comparison of several")
    one.add_argument("folders", nargs="+")
    one.add_argument(OUT, help="the comparison's file (default comparison.html)")
    return top


def add_config_dir(command: argparse.ArgumentParser) -> None:
    """Let a command take a user's own folder of configs."""
    command.add_argument(CONFIG_DIR, help="a folder with algorithm/, experiment/, ... of your own")


def options_first(given: Sequence[str]) -> list[str]:
    """The arguments with options in front: argparse splits overrides that stand around them."""
    front, rest, place = list[str](), list[str](), 1
    while place < len(given):
        name, equals, _ = given[place].partition("=")
        valued = name in (CONFIG_DIR, OUT) or (name in valued_flags() and given[0] == "eval")
        end = place + (2 if valued and not equals else 1)
        (front if valued or name in SWITCHES else rest).extend(given[place:end])
        place = end
    return [*given[:1], *front, *rest]


WHOLE = {"train": "rlkit.run", "serve": "rlkit.serve"}
"""Commands that are modules of their own and take their arguments as they are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; a user's mistake is one line and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in WHOLE:
        return importlib.import_module(WHOLE[given[0]]).main(given[1:])  # type: ignore[no-any-return]

    def call() -> None:
        a = parser().parse_args(options_first(given))
        calls = {
            "list": lambda: list_options(a.kind, config_folders(a.config_dir)),
            "show": lambda: show(a.kind, a.name, config_folders(a.config_dir)),
            "check": lambda: check(a.path, a.kind),
            "eval": lambda: evaluate(a),
            "merge": lambda: merge(a.checkpoint, a.out),
            "report": lambda: report(a.folders, a.out),
        }
        calls[a.command]()

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main())
