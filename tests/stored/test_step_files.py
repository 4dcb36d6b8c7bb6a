"""What a resume removes of a run's files: those of later steps, and those half written."""

from __future__ import annotations

from pathlib import Path

from rlkit.stored.step_files import forget_after, step_of

KEPT = (
    "step-1.jsonl",
    "step-10.jsonl",
    "tokens-step-2.parquet",
    "step-00000010.parquet",
    "math/step-10.parquet",
    "notes.txt",
    "step-11.txt",
    "part-00012.parquet",
)
GONE = (
    "step-11.jsonl",
    "tokens-step-11.parquet",
    "step-00000011.parquet",
    "math/step-100.parquet",
    ".step-2.parquet.tmp",
    ".tokens-step-2.parquet.tmp",
    "math/.step-00000001.parquet.tmp",
)


def test_files_of_later_steps_and_halves_go_and_others_stay(tmp_path: Path) -> None:
    for name in (*KEPT, *GONE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    forget_after(tmp_path, 10)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {*KEPT}
    forget_after(tmp_path / "nowhere", 0)


def test_the_step_of_a_name() -> None:
    names = (
        "step-00000012.parquet",
        "tokens-step-7.parquet",
        "part-00012.parquet",
        "astep-1.jsonl",
    )
    assert [step_of(Path(name)) for name in names] == [12, 7, None, None]
