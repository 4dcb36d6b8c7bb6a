"""What counts as right, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.golds import KEYS
from tests.evaluation.test_problems import loaded, write

MINERVA = {
    "id": "m",
    "prompt": "How bright is it?",
    "answer": "4.5e33",
    "meta": {"answer_latex": r"4.5 \times 10^{33}", "remix_answers": ["4.5e33", "3.9e33"]},
}


def test_minerva_is_marked_with_the_key_that_is_chosen(tmp_path: Path) -> None:
    write(tmp_path, "minerva.jsonl", MINERVA)
    (original,), (remix,) = (loaded("minerva", tmp_path, key).rows for key in KEYS)
    assert original["accepted"] == [r"4.5 \times 10^{33}"]
    assert remix["accepted"] == ["4.5e33", "3.9e33"]
    assert original["tolerance"] == remix["tolerance"] == 0.01
    assert any("'remix'" in note for note in loaded("minerva", tmp_path, "remix").notes)


def test_the_remix_key_needs_its_column(tmp_path: Path) -> None:
    write(tmp_path, "minerva.jsonl", {"prompt": "1+1=", "answer": "2"})
    assert loaded("minerva", tmp_path).rows[0]["accepted"] == ["2"]
    with pytest.raises(UserError, match="remix_answers"):
        loaded("minerva", tmp_path, "remix")


@pytest.mark.parametrize(
    ("meta", "answer", "accepted", "tolerance"),
    [
        ({"unit": None, "error": None}, "$69$,$84$", ["$69$,$84$"], 0.0),
        ({"unit": "km", "error": None}, "$5$", ["$5$"], 0.0),
        ({"unit": "%", "error": "1e-1"}, "$4.0$", ["$4.0$", r"4.0\%"], 0.025),
        ({"unit": None, "error": "1e-1"}, "x", ["x"], 0.0),
        ({"unit": None, "error": "1e-1"}, "0", ["0"], 0.0),
    ],
)
def test_olympiadbench_has_units_and_an_absolute_error(
    meta: dict[str, Any], answer: str, accepted: list[str], tolerance: float, tmp_path: Path
) -> None:
    write(tmp_path, "olympiadbench.jsonl", {"prompt": "?", "answer": answer, "meta": meta})
    (row,) = loaded("olympiadbench", tmp_path).rows
    assert (row["accepted"], row["tolerance"]) == (accepted, pytest.approx(tolerance))


def test_gsm8k_has_its_answer_behind_the_hashes(tmp_path: Path) -> None:
    rows = ({"question": "?", "answer": f"So 3 * 4.\n#### {a}"} for a in ("1,200", "7"))
    write(tmp_path, "gsm8k_test.jsonl.gz", *rows, {"question": "?", "answer": "12"})
    assert [row["answer"] for row in loaded("gsm8k", tmp_path).rows] == ["1200", "7", "12"]
