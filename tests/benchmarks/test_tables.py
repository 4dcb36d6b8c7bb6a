"""The tables that the scripts make of their measurements, from measurements by hand."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name: str) -> SimpleNamespace:
    """The names of a script of benchmarks/."""
    return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py"), run_name=name))


def case(settings: dict[str, Any], **runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A case of the results."""
    place = {"processor": "x", "cores": 2, "memory_gib": 8, "threads": 1}
    return {"machine": place, "versions": {"torch": "2"}, "settings": settings, "runs": runs}


def tables(script: SimpleNamespace, *more: Any, **cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What a script makes of cases."""
    found: list[dict[str, Any]] = script.tables(SimpleNamespace(cases=cases), *more)
    return found


def test_cases_share_a_table_if_only_what_varies_differs() -> None:
    records = load("records")
    cases = {
        "a": case({"size": 1, "repeats": 5}),
        "b": case({"size": 2, "repeats": 5}),
        "c": case({"size": 1, "repeats": 3}),
        "d": case({"size": 3, "repeats": 5}) | {"versions": {"torch": "3"}},
    }
    assert [[*each] for each in records.alike(cases, "size")] == [["a", "b"], ["c"], ["d"]]
    assert records.constant(cases["a"], "size") == {"repeats": 5}


def test_a_case_measured_again_is_replaced_and_the_others_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, path = load("records"), tmp_path / "found.json"
    for name, seconds in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        records = module.Records(path)
        records.put(name, {"threads": 1}, {}, {"runs": [{"seconds": seconds}]})
        records.finish([module.Table(title=name, about=[], head=["x"], rows=[["1"]])])
    found = json.loads(path.read_text())
    kept = {name: each["runs"]["runs"] for name, each in found["cases"].items()}
    assert kept == {"a": [{"seconds": 3.0}], "b": [{"seconds": 2.0}]}
    assert [table["title"] for table in found["tables"]] == ["a"]
    assert capsys.readouterr().out.split() == ["a", "x", "1", "b", "x", "1", "a", "x", "1"]


def generated(rate: float, share: float) -> list[list[str]]:
    """The rows of one case beside `generate` at 100 tokens per second, and of one row."""
    script = load("generation")
    sizes = dict.fromkeys(script.SIZES, 1)
    row = {"bytes_per_second": share * 8e9, "bandwidth": 8e9, "share": share}
    runs = {"hf": [{"wall": rate, "cpu": 50.0}], "generate": [{"wall": 100.0, "cpu": 200.0}]}
    many, one = tables(script, a=case(sizes, **runs, one_row=[row]))
    return [*many["rows"], *one["rows"]]


def test_generation_is_judged_by_the_clock_and_one_row_by_the_bandwidth() -> None:
    assert generated(150.0, 0.25) == [
        ["a", "the clock", "150", "100", "1.5", "at least 1.3", "met"],
        ["a", "processor time", "50", "200", "0.25", "", ""],
        ["a", "2", "8", "0.25", "at least 0.5", "missed"],
    ]
    clock, _, one = generated(120.0, 0.5)
    assert clock[-1] == "missed" and one[-1] == "met"


def test_logprobs_are_judged_beside_full_logits_and_trl() -> None:
    """30 of 200 MiB is more than a tenth; 2.6 s are at most 1.35 of 2 s and more than 2.5 s."""
    script = load("logprob")

    def run(mib: int, seconds: float) -> list[dict[str, float]]:
        held = {"peak": mib * 2**20, "gradients": 10 * 2**20}
        return [{**held, "seconds": seconds, "processor": 1.0}]

    runs = {"plain": run(200, 2.0), "rlkit": run(30, 2.6), "trl": run(100, 2.5)}
    sizes = dict(zip(script.SIZES, (8, 4, 2, 1), strict=True))
    (table,) = tables(script, a=case(sizes, **runs))
    memory, gradients, seconds, _ = (row[2:] for row in table["rows"])
    assert {row[0] for row in table["rows"]} == {"8, 4, 2, 1"}
    assert memory == ["200", "30", "100", "0.15", "0.3", "at most 0.1", "missed"]
    assert gradients[:3] == ["10"] * 3 and gradients[-1] == ""
    assert seconds[3:] == ["1.3", "1.04", "at most 1.35; at most 1", "met; missed"]


def test_overhead_is_judged_and_the_profile_cut_to_its_largest() -> None:
    shares = {"rollout": 0.5, "forward": 0.1, "update": 0.28, "rest": 0.12}
    found = {"steps": 7, "seconds": 0.2, "shares": shares, "overhead": 0.12}
    profile = {"a.f": 0.08, "b.g": 0.03, "c.h": 0.01}
    step, split = tables(load("overhead"), 2, a=case({}, measured=[found | {"profile": profile}]))
    outside = ["outside rollout, forward, update", "12.0%", "at most 0.1", "missed"]
    assert step["rows"][0] == ["rollout", "50.0%", "", ""] and step["rows"][-1] == outside
    assert split["rows"] == [["a.f", "8.00%"], ["b.g", "3.00%"]]


def test_steps_show_their_distance_from_a_line_and_buffers_are_judged_at_one_size() -> None:
    script = load("scaling")
    points = [{"x": x, "time/step": x / 4, "memory/peak_mb": 100 + x} for x in (1, 2, 4)]
    lines = {"time/step": 0.021, "memory/peak_mb": 0.0}
    fits = {key: {"largest_relative_residual": worst} for key, worst in lines.items()}

    def buffer(*times: float) -> dict[str, Any]:
        sizes = (100, script.JUDGED, 10**5)[: len(times)]
        rows = [
            {"groups": groups, "ms": ms, "bytes_per_group": 64.0}
            for groups, ms in zip(sizes, times, strict=True)
        ]
        return case({"steps": 3}, points=rows, fit=[])

    cases = {
        "Steps: group_size": case({"steps": 8}, points=points, fit=[fits]),
        "Buffers: fifo": buffer(0.5, 4.0, 5.5),
        "Buffers: slow": buffer(0.5, 6.0, 24.5),
    }
    steps, buffers = tables(script, **cases)
    assert steps["rows"] == [
        ["group size", "1, 2, 4", "0.25, 0.5, 1", "2.1%", "101, 102, 104", "0.0%"]
    ]
    assert buffers["rows"] == [
        ["fifo", "0.5", "4", "5.5", "5", "64", "at most 5", "met"],
        ["slow", "0.5", "6", "24.5", "24", "64", "at most 5", "missed"],
    ]
    (small,) = tables(script, **{"Buffers (quick): fifo": buffer(0.5)})
    assert small["rows"] == [["fifo", "0.5", "0", "64", "", ""]]
    for table in (steps, buffers, small):
        assert {len(table["head"])} == {len(row) for row in table["rows"]}
