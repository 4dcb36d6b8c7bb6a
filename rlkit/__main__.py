"""The commands: `python -m rlkit <command>`; `--help` lists them.

What imports torch is imported where it is used, so that the others answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.composition.benchmark_options import SWITCHES, add_options, options_of, valued_flags
from rlkit.composition.command_parser import Parser
from rlkit.composition.config_files import config_folders
from rlkit.composition.guard import guarded
from rlkit.composition.show import list_options, show
from rlkit.errors import UserError, counted, known_names, suggest, with_article
from rlkit.plugins import KINDS, import_plugin
from rlkit.registry import check_kind, from_import_path, kind_of_class, names
from rlkit.runs.resume import CONFIG

if TYPE_CHECKING:
    from rlkit.pages.figures import Question

CONFIG_DIR, OUT = "--config-dir", "--out"
COMPARISON = "comparison.html"


def check(path: str, kind: str | None) -> None:
    """Run the contract kit on a user's part, given as pkg.mod:Class or ./file.py:Class."""
    from rlkit.testing import check_part

    module = import_plugin(path.rpartition(":")[0])
    cls = getattr(module, path.rpartition(":")[2], None)
    if cls is None:
        known, name = sorted(n for n in vars(module) if n[0] != "_"), path.rpartition(":")[2]
        listed = known_names(name, known, "the file")
        raise UserError(f"{path} does not exist.{suggest(name, known)} {listed}")
    guessed = kind or kind_of_class(cls)
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

    from rlkit.composition.base_model import model_folder
    from rlkit.composition.compose import compose
    from rlkit.composition.session import close
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


def report(asked: argparse.Namespace) -> None:
    """Write the report of one run, or a page that compares several and their table."""
    from rlkit.pages.comparison import lines_of, read_runs, write_csv
    from rlkit.pages.comparison_page import write_comparison
    from rlkit.pages.figures import compare
    from rlkit.pages.folders import run_folders
    from rlkit.pages.report import write_report

    paths = run_folders(asked.folders)
    if len(paths) == 1 and asked.csv is None:
        for option in ("metric", "baseline", "target", "out"):
            if getattr(asked, option) is not None:
                raise UserError(
                    f"--{option} is for comparing several runs, and only {paths[0]} is given: "
                    "name more, or leave it out"
                )
        print(write_report(paths[0]))
        return
    found = compare(read_runs(paths), question(asked))
    print("\n".join(lines_of(found)))
    if asked.csv is not None:
        write_csv(found, Path(asked.csv))
    print(write_comparison(found, Path(asked.out or COMPARISON)))


def serve_pages(asked: argparse.Namespace) -> None:
    """Serve the pages of runs until Ctrl-C."""
    from rlkit.pages.view import view

    view(asked.folders, asked.port, question(asked))


def question(asked: argparse.Namespace) -> Question:
    """What several runs are compared by."""
    from rlkit.pages.figures import Question

    return Question(metric=asked.metric, baseline=asked.baseline, target=asked.target)


def import_files(a: argparse.Namespace) -> None:
    """Write another tool's rollouts as stored ones."""
    from rlkit.composition.import_rollouts import import_rollouts

    *files, out = a.files
    if not files:
        raise UserError("import needs the files and then the folder to write")
    print(import_rollouts(a.source, files, out, a.tokenizer, a.reward, a.temperature))


def export(run: str, out: str, steps: str | None) -> None:
    """Write a run's stored rollouts as a data set."""
    from rlkit.stored.export import export as write
    from rlkit.stored.export import steps_of

    files, rows = write(Path(run), Path(out), steps_of(steps))
    print(f"{out}: {rows} responses in {counted(files, 'file')}")


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
    one.add_argument("kind", help="loss, buffer, ..., algorithm or experiment; or loss=<name>")
    one.add_argument("name", nargs="?", help="can stand alone if only one kind has it")
    add_config_dir(one)
    one = commands.add_parser("check", help="the contract kit on your own part")
    one.add_argument("path", help="pkg.mod:Class or ./file.py:Class")
    one.add_argument("--kind")
    commands.add_parser("doctor", help="look for what misconfigures runs: see doctor --help")
    one = commands.add_parser(
        "eval",
        help="evaluate a checkpoint, a run's newest one or a model",
        description="Evaluate a checkpoint by its run's settings, or a model on a task or on named "
        "benchmarks. A table goes to stderr, the figures to stdout as JSON, and every answer to a "
        "folder; with --on the table goes to stdout. See docs/evaluation.md.",
    )
    one.add_argument("checkpoint", help="a checkpoint, a run folder, or a model's name or folder")
    one.add_argument(
        "overrides", nargs="*", default=[], help="as for training: task=..., eval.problems=..."
    )
    one.add_argument(OUT, help="the folder for answers and figures (default one below evals/)")
    add_config_dir(one)
    add_options(one)
    one = commands.add_parser("merge", help="a plain model folder from a checkpoint with adapters")
    one.add_argument("checkpoint")
    one.add_argument("out", help="the folder to write")
    commands.add_parser("serve", help="a vLLM server for rollout=vllm_server")
    add_rollout_commands(commands)
    one = commands.add_parser("report", help="report.html of a run, or a comparison of several")
    add_runs(one)
    one.add_argument(OUT, help=f"the comparison's file (default {COMPARISON})")
    one.add_argument("--csv", help="write the comparison's table to this file too")
    one = commands.add_parser("view", help="the same pages in a browser, live while runs train")
    add_runs(one)
    one.add_argument("--port", type=int, default=0, help="the port (default: one that is free)")
    return top


def add_runs(command: argparse.ArgumentParser) -> None:
    """Let a command take runs, and how they are compared."""
    command.add_argument("folders", nargs="+", help="run folders, a sweep's folder, patterns")
    command.add_argument("--metric", help="what is compared (default eval/pass@1)")
    command.add_argument(
        "--baseline",
        help="the group that others are compared to: its name in "
        "the table, a part of it, or one of its folders (default: the first)",
    )
    command.add_argument(
        "--target",
        type=float,
        help="the score that costs are measured to (default: 90%% of the best group's gain)",
    )


def add_rollout_commands(commands: Any) -> None:
    """The commands that write and read stored rollouts."""
    one = commands.add_parser("export", help="a run's stored rollouts as one data set")
    one.add_argument("run", help="a run folder with rollouts (rollout.save=true)")
    one.add_argument("out", help="the folder to write")
    one.add_argument("--steps", help="first:last step, both included (default: all)")
    one = commands.add_parser("import", help="another tool's rollouts as stored ones")
    one.add_argument("files", nargs="+", help="its files, then the folder to write")
    one.add_argument(
        "--from", dest="source", required=True, help="openai, slime, trinity, trl or verl"
    )
    one.add_argument("--tokenizer", required=True, help="the model that sampled, by name or folder")
    one.add_argument("--reward", help="the column that counts (default: the tool's own total)")
    one.add_argument(
        "--temperature", type=float, default=1.0, help="at which it sampled (default 1)"
    )


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


WHOLE = {
    "train": "rlkit.run",
    "serve": "rlkit.serve",
    "doctor": "rlkit.composition.doctor.command",
}
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
            "export": lambda: export(a.run, a.out, a.steps),
            "import": lambda: import_files(a),
            "report": lambda: report(a),
            "view": lambda: serve_pages(a),
        }
        calls[a.command]()

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main())
