"""What the terminal and machines get."""

from __future__ import annotations

import json
import math

import pytest

from rlkit.composition.doctor.check import Check
from rlkit.composition.doctor.printed import Told, as_json, conclusion, lines

FINE = Check(name="model", verdict="ok", finding="It loads.")
ODD = Check(name="reward", verdict="warning", finding="Odd.", advice="Look.", figures={"a": 0.5})
BAD = Check(
    name="log-probs",
    verdict="problem",
    finding="word " * 40,
    advice="do " * 40,
    figures={"b": math.nan},
)


def test_lines_keep_the_width_and_stand_below_each_other() -> None:
    assert lines(FINE) == ["ok       model           It loads."]
    found = lines(BAD, 80)
    assert all(len(line) <= 80 for line in found) and len(found) > 4
    assert found[0].startswith("PROBLEM  log-probs       word word")
    assert all(line.startswith(" " * 25) for line in found[1:])
    assert sum(line.startswith(" " * 25 + "-> ") for line in found) == 1


def test_the_conclusion_counts() -> None:
    assert conclusion([FINE]) == "Nothing to mend."
    assert conclusion([FINE, ODD]) == "No problem, 1 warning."
    assert conclusion([ODD, BAD, ODD]) == "1 problem, 2 warnings."


def test_json_holds_everything_and_no_nan() -> None:
    found = json.loads(as_json("m", ["a=1"], [FINE, ODD, BAD]))
    assert (found["model"], found["overrides"]) == ("m", ["a=1"])
    assert (found["problems"], found["warnings"]) == (1, 1)
    assert [each["verdict"] for each in found["checks"]] == ["ok", "warning", "problem"]
    assert found["checks"][1]["figures"] == {"a": 0.5}
    assert found["checks"][2]["figures"] == {"b": None}


def test_checks_are_told_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told("m", [], quiet=False, about=60)
    told.add(ODD)
    assert capsys.readouterr().out.splitlines()[1:] == lines(ODD)
    told.conclude("arithmetic")
    assert capsys.readouterr().out.splitlines() == [
        "No task was given, so the problems are those of task=arithmetic: add task=jsonl "
        "task.path=<file> to examine your own.",
        "No problem, 1 warning.",
    ]


def test_machines_get_one_object_alone(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told("m", [], quiet=True, about=60)
    told.add(BAD)
    told.conclude("arithmetic")
    assert json.loads(capsys.readouterr().out)["problems"] == 1
