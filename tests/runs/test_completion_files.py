"""The files of completions/, also while a run still writes or somebody put links there."""

from __future__ import annotations

from pathlib import Path

from rlkit.runs.completion_files import (
    completion_file,
    completion_steps,
    has_completions,
    has_tokens,
    read_completions,
)


def test_steps_are_in_their_order_and_other_files_are_passed_over(tmp_path: Path) -> None:
    assert completion_steps(tmp_path) == []
    folder = tmp_path / "completions"
    folder.mkdir()
    for name in ("step-10.jsonl", "step-9.jsonl", "step-x.jsonl", "tokens-step-9.parquet", "a"):
        (folder / name).touch()
    assert completion_steps(tmp_path) == [9, 10]
    assert has_tokens(tmp_path, 9) and not has_tokens(tmp_path, 10)
    assert has_completions(tmp_path, 10) and not has_completions(tmp_path, 11)


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"response": "secret"}\n')
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "completions").mkdir(parents=True)
    (run / "completions" / "step-1.jsonl").symlink_to(secret)
    (run / "completions" / "tokens-step-1.parquet").symlink_to(secret)
    assert completion_steps(run) == [] and not has_completions(run, 1) and not has_tokens(run, 1)
    other.mkdir()
    (run / "completions" / "step-2.jsonl").touch()
    (other / "completions").symlink_to(run / "completions")
    assert completion_steps(run) == [2]
    assert completion_steps(other) == [] and not has_completions(other, 2)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = completion_file(tmp_path, 3)
    path.parent.mkdir()
    path.write_bytes(b'{"reward": 1}\n[1]\n{"response": "\xff"}\n{"rewar')
    assert read_completions(path) == [{"reward": 1}, {"response": "\N{REPLACEMENT CHARACTER}"}]
