"""The page of `--help`: every name that can be chosen, every key of the run, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from rlkit.config.run import RunConfig
from rlkit.plugins import KINDS, LIST_KINDS
from rlkit.registry import names
from tests.cli import ROOT, run

GROUPS = (*KINDS, "algorithm", "experiment")
GROUP = re.compile(r"^  (\+?)(\w+)=(NAME|\[NAME,\.\.\.\])  (\S.*) \(default: (\S+)\)$")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("help")
    result = run("--help", cwd=folder)
    assert (result.status, result.err) == (0, "") and list(folder.iterdir()) == []
    return result.out


def groups(page: str) -> dict[str, tuple[re.Match[str], list[str]]]:
    """The head of each group and the names below it."""
    lines = page.split("\nGroups\n\n")[1].split("\n\nKeys of the run\n")[0].splitlines()
    found: dict[str, tuple[re.Match[str], list[str]]] = {}
    head = ""
    for line in lines:
        match = GROUP.match(line)
        if match:
            head = match[2]
            found[head] = (match, [])
        else:
            assert line.startswith("      ") and len(line) <= 100, line
            found[head][1].extend(name.strip() for name in line.strip().strip(",").split(","))
    return found


def test_every_group_lists_what_can_be_chosen(page: str) -> None:
    found = groups(page)
    assert sorted(found) == sorted(GROUPS)
    for group, (head, listed) in found.items():
        files = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert listed == sorted(files | set(names(group) if group in KINDS else ())), group
        assert (head[1] == "+") == (group == "experiment")
        assert (head[3] == "NAME") == (group not in LIST_KINDS)


def test_the_defaults_are_those_of_a_run(page: str, tmp_path: Path) -> None:
    composed = run("--cfg", "hydra", "-p", "hydra.runtime.choices", cwd=tmp_path).out
    chosen = dict(re.findall(r"^(\w+): (\w+)$", composed, re.MULTILINE))
    for group, (head, _) in groups(page).items():
        wanted = "none" if group in (*LIST_KINDS, "experiment") else chosen[group]
        assert head[5] == {"null": "none"}.get(wanted, wanted), group


@pytest.mark.parametrize("word", ["accelerate", "sweep", "tuned", "hydra/", "run_label"])
def test_what_cannot_be_chosen_is_not_there(word: str, page: str) -> None:
    assert word not in page


def keys(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object, str]]:
    """Every key of a config with its default and its docstring."""
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default, " ".join((field.description or "").split())


def test_every_key_of_the_run_is_there_with_default_type_bound_and_meaning(page: str) -> None:
    section = page.split("\nKeys of the run\n")[1].split("\nExamples\n")[0]
    lines = re.findall(r"^([\w.]+) = (.+)    \((.+)\)\n((?:    .+\n)+)", section, re.MULTILINE)
    found = {line[0]: line[1:] for line in lines}
    expected = {key: (default, meaning) for key, default, meaning in keys(RunConfig)}
    assert list(found) == list(expected)
    for key, (default, meaning) in expected.items():
        shown, _, text = found[key]
        assert " ".join(text.split()) == meaning, key
        if key != "output_dir":
            wanted = list(default) if isinstance(default, tuple) else default
            assert json.loads(shown) == wanted, key
    assert found["train.steps"][1] == "integer >= 1"
    assert found["model.lora.dropout"][1] == "number >= 0, < 1"
    assert found["checkpoint.on_error"][1] == "continue | stop"
    assert found["output_dir"][0] == '"runs/<algorithm>-<time>"'


def test_no_line_is_wider_than_a_terminal(page: str) -> None:
    assert [line for line in page.splitlines() if len(line) > 104] == []


def test_every_example_composes(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"^  python -m rlkit\.run (.+)$", page.split("\nExamples\n")[1], re.M)
    assert len(examples) > 5
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "my_loss.py").write_text(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0])
    rows = (f'{{"prompt": "{i}+1=", "answer": "{i + 1}"}}\n' for i in range(20))
    (tmp_path / "data.jsonl").write_text("".join(rows))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for example in examples:
        result = run(*shlex.split(example), "dry_run=true", cwd=tmp_path)
        assert result.status == 0, (example, result.err)
    found = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert found - {"__pycache__"} == {"model"}
