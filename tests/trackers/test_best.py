"""The best evaluation, whatever was resumed in between."""

from __future__ import annotations

from pathlib import Path

from rlkit.trackers.best import Best


def test_only_what_is_better_is_told(tmp_path: Path) -> None:
    best = Best(tmp_path)
    assert best.better({"eval/pass@1": 0.25, "reward/mean": 9.0}) == {"best/eval/pass@1": 0.25}
    assert best.better({"eval/pass@1": 0.25}) == {}
    assert best.better({"eval/pass@1": 0.5, "eval/math500/pass@1": 0.1}) == {
        "best/eval/pass@1": 0.5,
        "best/eval/math500/pass@1": 0.1,
    }
    assert best.better({"eval/pass@16": 0.9}) == {}


def test_what_was_before_a_resume_counts(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval/pass@1": 0.75}\n{"step": 1, "cut')
    assert Best(tmp_path).better({"eval/pass@1": 0.5}) == {}
