"""What a multirun tells of its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.multirun import Multirun


def test_a_job_is_told_by_what_is_its_own() -> None:
    several = Multirun([[f"algorithm={a}", "x=1", f"seed={s}"] for a in "pq" for s in (0, 1, 2)])
    assert several.line(1) == "job 2 of 6: algorithm=p seed=1"
    assert several.line(5) == "job 6 of 6: algorithm=q seed=2"
    assert Multirun([["seed=1"]]).line(0) == "job 1 of 1"


def test_the_jobs_that_trained_here_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []

    def compared(paths: list[Path]) -> list[str]:
        seen.append(paths)
        return ["a table"]

    monkeypatch.setattr("rlkit.pages.comparison.table_lines", compared)
    several = Multirun([["seed=0"], ["seed=1"], ["seed=2"]])
    for name in ("0", "1", "2"):
        (tmp_path / name).mkdir()
        several.folders.append(tmp_path / name)
    assert several.conclusion() == [] and not seen, "a dry run trains nothing"
    (tmp_path / "0" / "metrics.jsonl").touch()
    assert several.conclusion() == [] and not seen, "one run is compared with nothing"
    (tmp_path / "2" / "metrics.jsonl").touch()
    assert several.conclusion() == ["a table"]
    assert seen == [[tmp_path / "0", tmp_path / "2"]]
