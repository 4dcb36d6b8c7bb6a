"""The shape of the source, and files that nothing imports: configs, sweeps, package metadata."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import rlkit
from tests.cli import run

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rlkit", "algorithms", "buffers", "anchors", "schedules")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SWEEPS = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAX_FILE, MAX_FUNCTION, MAX_NESTING = 300, 60, 3
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|NotImplemented" + r"Error)\b")
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks stand in each other; an elif is beside its if, inner functions start anew."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            continue
        elif_branch = (
            isinstance(node, ast.If) and isinstance(child, ast.If) and is_elif(node, child)
        )
        inside = depth + int(isinstance(child, BLOCKS) and not elif_branch)
        deepest = max(deepest, nesting(child, inside))
    return deepest


def is_elif(node: ast.If, child: ast.If) -> bool:
    return node.orelse == [child] and child.col_offset == node.col_offset


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, FUNCTIONS))


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass", 1),
        ("def f():\n if a:\n  pass\n else:\n  if b:\n   pass", 2),
        ("def f():\n for a in b:\n  with c:\n   while d:\n    pass", 3),
        ("def f():\n if a:\n  def g():\n   if b:\n    pass", 1),
    ],
)
def test_nesting_is_counted_as_a_reader_sees_it(source, depth):
    (first, *_) = ast.parse(source).body
    assert nesting(first) == depth


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_source_file_is_small_and_finished(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    assert not UNFINISHED.search(text)
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"
        assert nesting(function) <= MAX_NESTING, (
            f"{function.name} is nested {nesting(function)} deep"
        )


CORE = ("trainer", "collect", "prepare", "references", "objective", "update")
"""The files of rlkit/training that, with the data, are the loop."""


def test_the_loop_can_be_read() -> None:
    files = [ROOT / "rlkit" / "batch.py", *(ROOT / f"rlkit/training/{name}.py" for name in CORE)]
    assert sum(len(file.read_text().splitlines()) for file in files) <= 1600


CLOSED = ROOT / "tests" / "algorithms" / "closed"


TESTED_BY_END_TO_END = {
    f"rlkit/{name}.py"
    for name in (
        *("__main__", "run", "serve"),  # the commands
        *("objective", "mixture"),  # other names of rlkit.training and rlkit.ops
        *("distributed/deepspeed", "distributed/fsdp"),  # tests/end_to_end/test_processes.py
    )
}


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.name != "__init__.py" and name_of(p) not in TESTED_BY_END_TO_END],
    ids=name_of,
)
def test_a_source_file_has_its_tests_in_the_file_of_its_name(path):
    place = path.relative_to(ROOT)
    folder = place.parent.relative_to("rlkit") if place.parts[0] == "rlkit" else place.parent
    assert (ROOT / "tests" / folder / f"test_{place.name}").is_file()


def test_every_exemption_is_a_file():
    assert {name_of(path) for path in SOURCES} >= TESTED_BY_END_TO_END


def test_the_closed_forms_are_beside_the_losses_they_are_of():
    sources = {path.stem for path in (ROOT / "algorithms").glob("*.py")}
    assert {path.stem for path in CLOSED.glob("*.py")} - {"base"} <= sources


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_is_a_yaml_mapping(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_every_package_of_the_wheel_exists_and_is_typed():
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file(), package
        assert (ROOT / package / "py.typed").is_file(), package
    for source in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / source).is_dir()


def test_the_version_is_written_once():
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", rlkit.__version__)


def test_every_pinned_version_is_one_the_requirements_allow():
    project = PYPROJECT["project"]
    wanted = [
        Requirement(text)
        for text in itertools.chain(
            project["dependencies"], *project["optional-dependencies"].values()
        )
    ]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    untried = {"vllm", "gguf"}
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-")
        if name not in untried:
            assert pins[name] in requirement.specifier, requirement


def tried_values(parameter: dict) -> list[object]:
    """What a sweep tries of a parameter: every listed value, or the ends of its range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def test_the_ablation_grid_holds_remix_and_each_change_of_one_part():
    sweep = yaml.safe_load((ROOT / "configs/sweep/ablation.yaml").read_text())
    assert sweep["method"] == "grid"
    parts = {k: v["values"] for k, v in sweep["parameters"].items() if "values" in v}
    parts.pop("seed")
    grid = list(itertools.product(*parts.values()))
    remix = ("remix", "fifo", "kl_convex", "reincarnate")
    assert dict(zip(parts, remix, strict=True)) == {
        "loss": "remix",
        "buffer": "fifo",
        "anchor": "kl_convex",
        "schedule": "reincarnate",
    }
    assert remix in grid
    for i, choices in enumerate(parts.values()):
        assert {row[i] for row in grid if row[:i] + row[i + 1 :] == remix[:i] + remix[i + 1 :]} == {
            *choices
        }


@pytest.mark.parametrize("path", SWEEPS, ids=name_of)
def test_a_sweep_runs_the_command_and_maximizes_a_logged_metric(path):
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"] == {"name": "eval/pass@1", "goal": "maximize"}
    assert sweep["command"] == [
        "${env}",
        "${interpreter}",
        "-m",
        "rlkit.run",
        "tracker=[wandb]",
        "${args_no_hyphens}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=name_of)
def test_every_value_a_sweep_tries_composes(path, tmp_path):
    parameters = yaml.safe_load(path.read_text())["parameters"]
    fixed = [f"{name}={p['value']}" for name, p in parameters.items() if "value" in p]
    for name, parameter in parameters.items():
        for value in tried_values(parameter):
            arguments = dict.fromkeys([*fixed, f"{name}={value}", "dry_run=true"])
            result = run(*arguments, "tracker=[wandb]", "tracker.wandb.mode=offline", cwd=tmp_path)
            assert result.status == 0, f"{name}={value}: {result.err}"
