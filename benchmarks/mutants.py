"""Do the tests notice a wrong sign, bound, mask or detach? Mutants of ten losses.

    python benchmarks/mutants.py --workers 2
    python benchmarks/mutants.py --losses algorithms/gspo.py algorithms/corrections/trm.py

Each mutant changes one thing in a loss's file: a sign, an operator, the direction of a comparison,
a constant, a clamp, a mask, a detach. The loss's tests then run in a process of their own against
the changed source (nothing is written to disk). A mutant that no test notices is printed, and so is
one whose tests take too long: it may loop forever, or the machine may be slow. The files of
corrections, advantages and of rlkit itself are changed in the same way.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import ROOT
from mutant_tests import Tests, names_of

from rlkit.registry import names as names_known

TEN = ("ppo", "remix", "bapo", "topr", "gspo", "cispo", "rec", "minpro", "m2po", "gvpo")
SWAPPED_OPERATORS: dict[type[Any], type[Any]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SWAPPED_COMPARISONS: dict[type[Any], type[Any]] = {
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.LtE,
    ast.LtE: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
SWAPPED_NAMES = {"min": "max", "max": "min", "prox_logp": "behavior_logp"}
SWAPPED_NAMES |= {"behavior_logp": "prox_logp"}
NOTICED, SURVIVED, TIMED_OUT = 0, 3, -1
LIMIT = 120.0
"""Seconds that the tests of a mutant may take."""
DROPPED_CALLS = {"clamp", "detach", "exp", "abs"}


@dataclass(frozen=True)
class Mutant:
    """One change of a file."""

    module: str
    line: int
    change: str
    tree: ast.Module
    """The changed source, with the lines of the file, where pydantic looks for docstrings."""


def nodes(tree: ast.Module) -> list[ast.AST]:
    """The nodes inside functions and methods: the maths, not the settings."""
    found: dict[int, ast.AST] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found |= {id(n): n for statement in node.body for n in ast.walk(statement)}
    return list(found.values())


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(what is changed, the node in its place) for a node."""
    before = ast.unparse(node) if isinstance(node, ast.expr) else ""
    new: Any = copy.deepcopy(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        yield f"{before} -> {ast.unparse(node.operand)}", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED_OPERATORS:
        if isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return
        new.op = SWAPPED_OPERATORS[type(node.op)]()
        yield f"{before} -> {ast.unparse(new)}", new
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED_COMPARISONS:
        new.ops = [SWAPPED_COMPARISONS[type(node.ops[0])]()]
        yield f"{before} -> {ast.unparse(new)}", new
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        new.value += 1
        yield f"{before} -> {new.value}", new
    elif isinstance(node, ast.Attribute) and node.attr in SWAPPED_NAMES:
        new.attr = SWAPPED_NAMES[node.attr]
        yield f"{before} -> {ast.unparse(new)}", new
    elif isinstance(node, ast.Call):
        yield from call_changes(node, before)


def call_changes(node: ast.Call, before: str) -> Iterator[tuple[str, ast.AST]]:
    """A clamp, detach, exp or mask taken away."""
    name = node.func
    if not isinstance(name, ast.Attribute):
        return
    if name.attr in DROPPED_CALLS:
        yield f"{before} -> {ast.unparse(name.value)}", name.value
    elif name.attr == "where" and "mask" in ast.unparse(node.args[0]):
        yield f"{before} -> {ast.unparse(node.args[1])}", node.args[1]


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, target: ast.AST, new: ast.AST) -> None:
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> Any:
        """The new node, or the old one with its children visited."""
        return self.new if node is self.target else self.generic_visit(node)


def module_of(path: Path) -> str:
    """What a source file is imported as."""
    return ".".join(path.resolve().relative_to(ROOT).with_suffix("").parts)


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file."""
    text = path.read_text()
    for index, node in enumerate(nodes(ast.parse(text))):
        for number, _ in enumerate(changes(node)):
            tree = ast.parse(text)
            target = nodes(tree)[index]
            change, new = list(changes(target))[number]
            ast.copy_location(new, target)
            changed = ast.fix_missing_locations(Replace(target, new).visit(tree))
            yield Mutant(module_of(path), getattr(node, "lineno", 0), change, changed)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module from the mutant's tree."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.path = str(ROOT / (mutant.module.replace(".", "/") + ".py"))

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Itself, for the mutant's module."""
        ours = fullname == self.mutant.module
        return importlib.machinery.ModuleSpec(fullname, self, origin=self.path) if ours else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        module.__file__ = self.path
        exec(compile(self.mutant.tree, self.path, "exec"), module.__dict__)


def noticed(mutant: Mutant, tests: Tests, names: Sequence[str]) -> bool:
    """Whether a test fails on the mutant; runs in a process of its own.

    First the tests of the file's own name and of the files that name its parts, then all others
    that are called after them.
    """
    import pytest

    sys.meta_path.insert(0, Finder(mutant))
    if sys.modules.pop(mutant.module, None) is not None and not imports(mutant.module):
        return True
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    unasserted = "ignore::pytest.PytestAssertRewriteWarning"
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", unasserted]
    with open(os.devnull, "w") as void:
        os.dup2(void.fileno(), 1)
        os.dup2(void.fileno(), 2)
        fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        chosen = tests.chosen(mutant.module, names)
        return any(pytest.main([*each, *quiet]) not in fine for each in chosen if each)


def imports(module: str) -> bool:
    """Whether a module can be imported, which takes the place of the one that was."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def main() -> None:
    """Print each file's mutants, how many were noticed, and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--losses", nargs="*", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--own",
        nargs="*",
        type=Path,
        help="only the test file of each file's own name, and these; much faster",
    )
    options = parser.parse_args()
    files = options.losses or [ROOT / "algorithms" / f"{name}.py" for name in TEN]
    tests = Tests(options.own)
    total: Counter[int] = Counter()
    for heavy in ("torch", "transformers", "pytest", "rlkit.testing", "rlkit.training.objective"):
        importlib.import_module(heavy)  # before the forks, which then import only the parts
    if tests.own is not None:
        names_known("loss")  # and not even those: the changed file alone is imported again
    for path in files:
        every, names = list(mutants(path)), names_of(path)
        unchanged = Mutant(module_of(path), 0, "", ast.parse(path.read_text()))
        first, *others = run_all([unchanged, *every], tests, names, options.workers)
        if first != SURVIVED:
            raise SystemExit(
                f"the tests of {path.stem} fail or take too long on the unchanged file"
            )
        total.update(others)
        print(f"{path.stem:12} {counts(others)}", flush=True)
        for mutant, result in zip(every, others, strict=True):
            if result != NOTICED:
                late = " (over the time limit)" if result == TIMED_OUT else ""
                print(f"    line {mutant.line}: {mutant.change}{late}")
    print(counts([*total.elements()]))


def counts(results: Sequence[int]) -> str:
    """How many mutants were noticed, survived, or took too long to tell."""
    found = Counter(results)
    late = f", {found[TIMED_OUT]} over the time limit" if found[TIMED_OUT] else ""
    noticed, survived = found[NOTICED], found[SURVIVED]
    return f"{noticed} of {len(results)} noticed, {survived} survived{late}"


def run_all(
    every: Sequence[Mutant],
    tests: Tests,
    names: Sequence[str],
    workers: int,
    limit: float = LIMIT,
) -> list[int]:
    """NOTICED, SURVIVED or TIMED_OUT for each, in as many processes at a time as asked."""
    context = get_context("fork")
    results = [TIMED_OUT] * len(every)
    running: list[tuple[int, Any]] = []

    def job(index: int) -> None:
        os._exit(NOTICED if noticed(every[index], tests, names) else SURVIVED)

    def collect(most: int) -> None:
        while len(running) > most:
            index, process = running.pop(0)
            process.join(limit)
            if process.is_alive():
                process.kill()
                process.join()
            elif process.exitcode in (NOTICED, SURVIVED):
                results[index] = process.exitcode
            else:
                raise SystemExit(f"the tests of {every[index].module} did not run")

    for index in range(len(every)):
        collect(workers - 1)
        process = context.Process(target=job, args=(index,))
        process.start()
        running.append((index, process))
    collect(0)
    return results


if __name__ == "__main__":
    main()
