"""Which tests are to notice a mutant of a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT


@dataclass(frozen=True)
class Tests:
    """Which tests are to notice a mutant."""

    own: Sequence[Path] | None
    """None = all; else the test file of a file's own name, and these."""

    def chosen(self, module: str, names: Sequence[str]) -> Iterator[list[str]]:
        """Arguments of pytest, one call after the other."""
        yield own_tests(module)
        called = ["-k", " or ".join(names)]
        if self.own is not None:
            yield [*map(str, self.own), *called] if self.own else []
            return
        yield files_that_name(names)
        yield ["tests/algorithms", "tests/golden", *called]


def own_tests(module: str) -> list[str]:
    """The test file of a source file."""
    *folder, name = module.removeprefix("rlkit.").split(".")
    path = ROOT.joinpath("tests", *folder, f"test_{name}.py")
    return [str(path)] if path.is_file() else []


def files_that_name(names: Sequence[str]) -> list[str]:
    """The test files that name a part."""
    files = sorted((ROOT / "tests" / "algorithms").rglob("test_*.py"))
    return [str(f) for f in files if any(f'"{name}' in f.read_text() for name in names)]


def names_of(path: Path) -> list[str]:
    """What a file's losses are called in the names of their tests."""
    registered = [
        node.args[1].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "register"
        and isinstance(node.args[1], ast.Constant)
    ]
    return sorted({str(name).partition("_")[0] for name in registered} | {path.stem})
