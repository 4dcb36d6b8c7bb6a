"""The golden cases of heads.py, in both precisions, and the mistakes they are to find."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.golden import heads
from tests.golden.check import check, lines_of

CASES: dict[str, dict[str, Any]] = {
    each["case"]: each for each in map(json.loads, lines_of(heads.FILE))
}
WRONG = [(name, i) for name, each in CASES.items() for i in range(len(each["wrong"]))]


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, single: bool) -> None:
    assert not check(json.dumps(CASES[case]), single=single)[1]


@pytest.mark.parametrize(("case", "number"), WRONG)
def test_a_mistake_is_found_by_a_number(case: str, number: int) -> None:
    wrong = CASES[case] | {"expect": CASES[case]["wrong"][number]["expect"]}
    reason = check(json.dumps(wrong))[1]
    assert re.search(r"Mismatch: .*: .* expected", reason), reason


def test_a_wrong_gradient_of_the_head_is_found() -> None:
    wrong = json.loads(json.dumps(CASES["flowrl/paper"]))
    wrong["expect"]["grad_head"][0] += 1e-4
    assert "grad_head" in check(json.dumps(wrong))[1]


def test_the_file_holds_what_the_formulas_give() -> None:
    for each in heads.records():
        found = CASES[each["case"]]["expect"]
        assert found.keys() == each["expect"].keys()
        for key, value in each["expect"].items():
            if key != "aggregation":
                assert np.array(found[key]) == pytest.approx(np.array(value), rel=1e-9, abs=1e-12)
