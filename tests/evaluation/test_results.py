"""The one dict that results.json, the table and the page are made from."""

from __future__ import annotations

import json

from rlkit.evaluation.results import Result, results_of


def result(name: str, *values: float) -> Result:
    return Result(
        name=name,
        title=name,
        source="file",
        flaws="",
        notes=("told",),
        settings={"problems": len(values)},
        values={"pass@1": list(values)},
    )


def test_the_macro_average_is_there_with_several_benchmarks_alone() -> None:
    assert results_of([result("a", 1.0)], {}, None, 0)["macro"] is None
    found = results_of([result("a", 1.0, 0.0), result("b", 1.0)], {"model": "m"}, "remix", 0)
    assert found["macro"]["pass@1"]["value"] == 0.75 and found["macro"]["pass@1"]["n"] == 2
    assert found["suite"] == "remix" and found["settings"] == {"model": "m"}
    one = found["benchmarks"]["a"]
    assert one["counts"] == {}
    assert one["figures"]["pass@1"]["value"] == 0.5 and one["notes"] == ["told"]
    assert json.loads(json.dumps(found)) == found
