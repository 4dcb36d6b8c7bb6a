"""Every golden case in both precisions, and the command that reads them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.golden import derive
from tests.golden.check import check, lines_of, main
from tests.golden.derive import FILE as DERIVED

FILE = Path(__file__).with_name("losses.jsonl.gz")
LINES = {json.loads(line)["case"]: line for path in (FILE, DERIVED) for line in lines_of(path)}
WRONG = [
    (name, number)
    for name, line in LINES.items()
    for number in range(len(json.loads(line).get("wrong", ())))
]


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("case", LINES)
def test_golden(case: str, single: bool) -> None:
    _, reason = check(LINES[case], single=single)
    assert not reason


@pytest.mark.parametrize(("case", "number"), WRONG)
def test_the_numbers_of_a_mistake_do_not_agree(case: str, number: int) -> None:
    """Each is refused for a number, not for a name."""
    record: dict[str, Any] = json.loads(LINES[case])
    record["expect"] = record["wrong"][number]["expect"]
    _, reason = check(json.dumps(record))
    assert re.search(r"Mismatch: (loss|grad_logp|advantages|value)\[.*\]: .* expected", reason), (
        reason
    )


def test_the_derived_cases_are_those_that_the_formulas_give() -> None:
    """In the file as this machine computes them; run `python -m tests.golden.derive` for others."""
    for line, made in zip(lines_of(DERIVED), derive.records(), strict=True):
        for stored, found in zip(flat(json.loads(line)), flat(made), strict=True):
            if isinstance(stored, float):
                assert found == pytest.approx(stored, rel=1e-9, abs=1e-12)
            else:
                assert found == stored


def flat(value: Any) -> list[Any]:
    """The numbers and words of a record in order."""
    if isinstance(value, dict):
        return [x for key, inner in value.items() for x in (key, *flat(inner))]
    return [x for inner in value for x in flat(inner)] if isinstance(value, list) else [value]


def written(folder: Path, *records: dict[str, Any]) -> str:
    file = folder / "cases.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def record(case: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(LINES[case])
    for path, value in changes.items():
        *inner, last = path.split("__")
        place = found
        for key in inner:
            place = place[key]
        place[last] = value
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "no_such_loss"},
        {"kind": "no_such_kind"},
        {"config__no_such_setting": 1},
        {"expect__no_such_number": 1.0},
        {"expect__extra": {"no_such_extra": 1.0}},
        {"expect__aggregation": "no-such-mean"},
        {"expect__loss": 7.0},
    ],
)
def test_what_is_unknown_or_wrong_fails(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = record("ppo/noclamp-edge")
    assert main([written(tmp_path, good)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"
    assert main([written(tmp_path, good, record("ppo/noclamp-edge", **changes))]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"


def test_a_wrong_gradient_extra_or_return_fails(tmp_path: Path) -> None:
    gradient = record("ppo/noclamp-edge")
    gradient["expect"]["grad_logp"][1][0] += 1e-4
    extra = record("bapo/alg1-few")
    extra["expect"]["extra"]["c_high"] += 0.05
    returns = record("adv/gae/g99l95")
    returns["expect"]["returns"][0][0] += 1e-4
    for wrong in (gradient, extra, returns):
        assert main([written(tmp_path, wrong)]) == 1


def test_plain_and_packed_files_and_a_broken_line(tmp_path: Path) -> None:
    packed = tmp_path / "cases.gz"
    with gzip.open(packed, "wt") as file:
        file.write(LINES["ppo/noclamp-edge"])
    assert main([str(packed)]) == 0
    with gzip.open(packed, "wt") as file:
        file.write(LINES["ppo/noclamp-edge"][:100] + "\n")
    assert main([str(packed)]) == 1
