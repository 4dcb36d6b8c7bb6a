"""The shipped sweeps, run as W&B runs them: expanded into commands, two of each in full."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli import ROOT, SMALL, metrics, run

SWEEPS = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))


def values(parameter: dict[str, Any]) -> list[Any]:
    """What a grid would try: the listed values, or the ends of a range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def commands(sweep: dict[str, Any]) -> list[list[str]]:
    """Every combination as the agent's command line, macros replaced."""
    names = list(sweep["parameters"])
    out = []
    for row in itertools.product(*(values(p) for p in sweep["parameters"].values())):
        arguments = [f"{name}={value}" for name, value in zip(names, row, strict=True)]
        macros = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable]}
        macros["${args_no_hyphens}"] = arguments
        out.append([word for token in sweep["command"] for word in macros.get(token, [token])])
    return out


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_the_first_and_the_last_command_run_and_report_to_wandb(path: Path, tmp_path: Path) -> None:
    expanded = commands(yaml.safe_load(path.read_text()))
    assert len(expanded) > 10
    for i, command in enumerate((expanded[0], expanded[-1])):
        assert command[:4] == ["/usr/bin/env", sys.executable, "-m", "rlkit.run"]
        out = tmp_path / str(i)
        env = {"WANDB_MODE": "offline"}
        result = run(*command[4:], *SMALL, f"output_dir={out}", cwd=tmp_path, env=env)
        assert result.status == 0, result.err
        assert "eval/pass@1" in metrics(out)[-1]
        assert list(out.glob("wandb/offline-run-*/*.wandb"))
