"""docs/models.md says what becomes of every causal architecture of transformers."""

from __future__ import annotations

import re
import runpy
from types import SimpleNamespace

import pytest

from tests.architectures import FAMILIES, KINDS, Finding, survey
from tests.cli import ROOT

architectures = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "architectures.py")))
"""The script that writes the page."""


def listed() -> dict[str, str]:
    """Each architecture of the page and the heading it is under."""
    found: dict[str, str] = {}
    for section in architectures.PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        names = re.findall(r"^\| `([^`]+)`" if "|---|" in text else "`([^`]+)`", text, re.MULTILINE)
        found |= dict.fromkeys(names, title)
    return found


def test_every_architecture_is_on_the_page_once() -> None:
    assert sorted(listed()) == list(KINDS)
    text = architectures.PAGE.read_text()
    assert all(text.count(f"`{kind}`") == 1 for kind in KINDS)
    assert {listed()[kind].split()[0] for kind in FAMILIES} == {"Works"}


def test_a_row_gives_the_reason_without_the_figures_of_a_machine() -> None:
    message = "a X cannot be trained: ... change by 0.63 nats with the padding of its batch, ..."
    row = architectures.row(Finding("x", "XForCausalLM", "refused", message))
    assert (
        row == "| `x` | XForCausalLM | any engine: log-probs change with the padding of a batch |"
    )
    row = architectures.row(Finding("x", "XForCausalLM", "fails", "KeyError: a | `b`"))
    assert row == "| `x` | XForCausalLM | `KeyError: a  b` |"


@pytest.mark.slow
def test_the_page_is_current() -> None:
    """A tiny model of each is built, and checked as a run is before its first step."""
    findings = survey()
    text = architectures.PAGE.read_text()
    assert text.endswith(architectures.lists(findings)), "run `python benchmarks/architectures.py`"
    assert sum(found.status in {"works", "padded"} for found in findings) > 100
