"""Every command but training: `python -m rlkit list|show|check|eval|merge|serve|report`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.composition.catalog import documentation, file_documentation, settings
from rlkit.composition.compose import compose
from rlkit.composition.hydra_groups import configs_folder, import_before_compose
from rlkit.composition.session import RunScope, close, model_folder, open_session
from rlkit.errors import UserError, suggest
from rlkit.models.load import load_policy
from rlkit.models.lora import save_merged
from rlkit.plugins import KINDS, LIST_KINDS, import_plugin
from rlkit.registry import check_kind, entry, from_import_path, names
from rlkit.run import guarded
from rlkit.runs.report import compare_report, write_report
from rlkit.runs.resume import CONFIG


def list_parts(kind: str | None) -> None:
    """Print the registered names of one kind, or of all kinds."""
    for each in [kind] if kind else KINDS:
        found = names(each)
        if kind:
            print("\n".join(found))
        else:
            print(f"{each + ':':<12}{', '.join(found)}")


def show(kind: str, name: str) -> None:
    """Print a part's documentation and its settings with defaults and bounds."""
    found = entry(kind, name)
    print(f"{kind}={found.name}  {found.import_path}  {found.source}\n")
    print(file_documentation(found), "\n")
    print(documentation(found), "\n")
    section = f"{kind}.{name}" if kind in LIST_KINDS else kind
    for each in settings(found):
        print(f"{section}.{each.name} = {each.default}    ({each.values})")
        print(textwrap.indent(textwrap.fill(each.meaning, 92), "    "))


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
        raise UserError(f"{path} breaks the contract of a {guessed}: {error}") from error


def evaluate(checkpoint: str, overrides: Sequence[str]) -> None:
    """Evaluate a checkpoint or a model and print the metrics as JSON."""
    arguments = import_before_compose([f"model.name={checkpoint}", "output_dir=.", *overrides])
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        raw: Any = OmegaConf.to_container(
            hydra_compose("config", overrides=arguments), resolve=True
        )
    c = compose(raw)
    session = open_session(c, RunScope.of(c))
    try:
        print(json.dumps(session.evaluator.run(0), indent=1))
    finally:
        close(c)


def merge(checkpoint: str, out: str) -> None:
    """Merge a checkpoint's adapters into its model and write a plain model folder."""
    folder = Path(checkpoint)
    try:
        raw = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint} is not a run's checkpoint: {CONFIG} is missing") from error
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{checkpoint} has no adapters to merge; it is already a plain model folder"
        )
    c = compose(raw)
    try:
        policy = load_policy(c.config.model, model_folder(c), 1.0, adapter=folder)
    finally:
        close(c)
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
    top = Parser(
        prog="rlkit", description="Parts and runs of rlkit. Training is `python -m rlkit.run`."
    )
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("list", help="registered parts")
    one.add_argument("kind", nargs="?")
    one = commands.add_parser("show", help="a part's settings, bounds, documentation and source")
    one.add_argument("kind")
    one.add_argument("name")
    one = commands.add_parser("check", help="run the contract kit on your own part")
    one.add_argument("path", help="pkg.mod:Class or ./file.py:Class")
    one.add_argument("--kind")
    one = commands.add_parser("eval", help="evaluate a checkpoint folder or a model")
    one.add_argument("checkpoint")
    one.add_argument("overrides", nargs="*", help="as for training: task=..., eval.problems=...")
    one = commands.add_parser("merge", help="a plain model folder from a checkpoint with adapters")
    one.add_argument("checkpoint")
    one.add_argument("out", help="the folder to write")
    commands.add_parser("serve", help="a vLLM server for rollout=vllm_server")
    one = commands.add_parser("report", help="report.html of a run, or a comparison of several")
    one.add_argument("folders", nargs="+")
    one.add_argument("--out", help="the comparison's file (default comparison.html)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake prints one line and exits with status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:  # takes vLLM's options as they are
        return importlib.import_module("rlkit.serve").main(given[1:])  # type: ignore[no-any-return]

    def call() -> None:
        a = parser().parse_args(given)
        calls = {
            "list": lambda: list_parts(a.kind),
            "show": lambda: show(a.kind, a.name),
            "check": lambda: check(a.path, a.kind),
            "eval": lambda: evaluate(a.checkpoint, a.overrides),
            "merge": lambda: merge(a.checkpoint, a.out),
            "report": lambda: report(a.folders, a.out),
        }
        calls[a.command]()

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main())
