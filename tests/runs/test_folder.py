"""A run's folder: who holds it, what a resumed run finds and cuts, what is written where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.runs.checkpoint import list_checkpoints, prune, write_checkpoint
from rlkit.runs.folder import RunFolder, as_lines, write


def opened(path: Path, step: int = 0) -> RunFolder:
    folder = RunFolder(path)
    folder.open({"a": 1}, ["x=1"], {"loss": {}}, step)
    return folder


def checkpoint(path: Path, step: int) -> Path:
    def fill(inside: Path) -> None:
        (inside / "w").write_text("x")

    return write_checkpoint(path, step, fill)


def test_one_process_alone_holds_a_folder(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    first.lock()
    with pytest.raises(UserError, match="another run is using"):
        second.lock()
    RunFolder(tmp_path, writes=False).lock()
    first.unlock()
    second.lock()


def test_a_run_is_described_and_metrics_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    for step in range(4):
        folder.log(step, {"m": float(step)})
    with folder.metrics.open("a") as file:
        file.write('{"step": 4, "m"')
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"
    assert (tmp_path / "overrides").read_text() == "x=1\n"
    folder.unlock()
    again = opened(tmp_path, step=2)
    rows = [json.loads(line) for line in again.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert again.first_and_last("m") == (0.0, 2.0)
    again.unlock()
    assert opened(tmp_path).metrics.read_text() == "", "a run from its start has none"


def test_responses_of_steps_after_the_checkpoint_go(tmp_path: Path) -> None:
    """A killed run left them; the steps that write them again may write others, or none."""
    folder = opened(tmp_path)
    inside = folder.path / "completions"
    for step in (1, 2, 10):
        folder.write_completions(step, [{"a": step}])
        (inside / f"tokens-step-{step}.parquet").touch()
    (inside / ".tokens-step-1.parquet.tmp").touch()
    (inside / "notes.txt").touch()
    folder.unlock()
    again = RunFolder(folder.path)
    again.open({}, [], {}, 2)
    left = {"step-1.jsonl", "step-2.jsonl", "tokens-step-1.parquet", "tokens-step-2.parquet"}
    assert {path.name for path in inside.iterdir()} == left | {"notes.txt"}
    again.unlock()
    opened(tmp_path).unlock()
    assert [path.name for path in inside.iterdir()] == ["notes.txt"], "a run from its start"


def test_a_process_that_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out", writes=False)
    folder.open({}, [], {}, 0)
    folder.log(1, {})
    folder.write_completions(1, [{}])
    folder.write_nonfinite(1, [{}])
    folder.save_tracker_ids({"a": "b"})
    assert not (tmp_path / "out").exists()


def test_what_resume_finds_and_forbids(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    assert folder.find_checkpoint("never") is None and not folder.notes
    assert folder.find_checkpoint("auto") is None
    assert folder.notes == [
        f"resume=auto found no checkpoint in {tmp_path / 'out'}: starting over."
    ]
    folder.notes.clear()
    older, newer = (checkpoint(tmp_path / "out", step) for step in (1, 2))
    assert folder.find_checkpoint("auto") == newer and not folder.notes
    assert folder.find_checkpoint(str(older)) == older
    assert folder.find_checkpoint(str(tmp_path / "out")) == newer
    with pytest.raises(UserError, match="already holds a run"):
        folder.find_checkpoint("never")
    with pytest.raises(UserError, match="there is no such folder"):
        folder.find_checkpoint("nowhere")
    other = checkpoint(tmp_path / "other", 3)
    with pytest.raises(UserError, match="already holds another run"):
        folder.find_checkpoint(str(other))


def test_a_damaged_checkpoint_is_noted_and_the_one_before_taken(tmp_path: Path) -> None:
    older, newer = (checkpoint(tmp_path, step) for step in (1, 2))
    (newer / "w").write_text("y")
    folder = RunFolder(tmp_path)
    assert folder.find_checkpoint("auto") == older
    assert len(folder.notes) == 2 and str(older) in folder.notes[1]
    (older / "w").write_text("y")
    folder.unlock()
    with pytest.raises(UserError, match="no checkpoint in .* is intact"):
        RunFolder(tmp_path).find_checkpoint("auto")


def test_checkpoints_of_later_steps_lose_their_names(tmp_path: Path) -> None:
    """Else the next save would remove itself for them, and the next resume would take them."""
    older, newer = (checkpoint(tmp_path, step) for step in (50, 100))
    (newer / "w").write_text("y")
    folder = RunFolder(tmp_path)
    assert folder.find_checkpoint("auto") == older
    told = folder.open({}, [], {}, 50)
    assert told == [
        f"{newer} is of a later step than the one continued from: kept as checkpoint-100-abandoned."
    ]
    assert (tmp_path / "checkpoint-100-abandoned" / "w").read_text() == "y"
    checkpoint(tmp_path, 100)
    assert folder.open({}, [], {}, 50)[0].endswith("kept as checkpoint-100-abandoned-2.")
    assert (tmp_path / "checkpoint-100-abandoned" / "w").read_text() == "y"
    sixty = checkpoint(tmp_path, 60)
    prune(tmp_path, keep=1)
    assert list_checkpoints(tmp_path) == [sixty] and folder.find_checkpoint("auto") == sixty


def test_a_resume_that_is_refused_leaves_later_checkpoints_alone(tmp_path: Path) -> None:
    """Only the start of training takes their names, once everything else was checked."""
    paths = [checkpoint(tmp_path, step) for step in (1, 2)]
    RunFolder(tmp_path).find_checkpoint(str(paths[0]))
    assert list_checkpoints(tmp_path) == paths


def test_ids_and_rows_come_back(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    assert folder.tracker_ids() == {}
    folder.save_tracker_ids({"wandb": "x"})
    assert folder.tracker_ids() == {"wandb": "x"}
    path = folder.write_nonfinite(3, [{"a": "é"}, {"p": Path("q")}])
    assert path == tmp_path / "nonfinite" / "step-3.jsonl"
    assert path.read_text() == as_lines([{"a": "é"}, {"p": "q"}]) == '{"a": "é"}\n{"p": "q"}\n'
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path, "x")


def begun(path: Path) -> RunFolder:
    """A run that was evaluated before its first step."""
    folder = RunFolder(path)
    assert folder.find_checkpoint("never") is None
    folder.open({}, [], {}, 0)
    folder.log(0, {"eval/pass@1": 0.5})
    return folder


def test_a_run_that_never_trained_a_step_leaves_nothing(tmp_path: Path) -> None:
    """Nor what was there before: only what it wrote goes."""
    folder = begun(tmp_path / "new")
    folder.discard_if_untrained()
    folder.unlock()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").write_text("mine")
    folder = begun(tmp_path / "old")
    folder.discard_if_untrained()
    folder.unlock()
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["notes.txt"]


def test_a_killed_run_without_a_step_does_not_take_the_name(tmp_path: Path) -> None:
    begun(tmp_path / "out").unlock()
    assert not RunFolder(tmp_path / "out").holds_run()
    begun(tmp_path / "out").unlock()


def test_a_run_with_a_step_or_responses_to_look_at_stays(tmp_path: Path) -> None:
    folder = begun(tmp_path / "step")
    folder.log(1, {})
    folder.discard_if_untrained()
    assert folder.holds_run() and folder.metrics.exists()
    folder = begun(tmp_path / "stuck")
    path = folder.write_nonfinite(1, [{}])
    folder.discard_if_untrained()
    assert path.exists()


def test_the_note_of_a_call_that_must_not_be_made_twice_stays(tmp_path: Path) -> None:
    """The call was made in the world, whatever became of the step."""
    folder = begun(tmp_path / "called")
    (folder.path / "called-once").write_text("start 3\n")
    folder.discard_if_untrained()
    assert (folder.path / "called-once").read_text() == "start 3\n"


def test_a_folder_another_run_is_using_is_not_removed(tmp_path: Path) -> None:
    first, second = begun(tmp_path / "out"), RunFolder(tmp_path / "out")
    with pytest.raises(UserError, match="another run is using"):
        second.find_checkpoint("never")
    second.discard_if_untrained()
    assert first.metrics.exists()


def test_answers_of_evaluations_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    """Also those that a kill cut short, and those of other sets of problems."""
    folder = opened(tmp_path)
    names = ("step-2", "step-4", "step-10", "math/step-2", "math/step-4")
    places = [tmp_path / "evaluations" / f"{name}.parquet" for name in names]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    (tmp_path / "evaluations" / ".step-2.parquet.tmp").write_text("cut")
    folder.unlock()
    opened(tmp_path, step=4).unlock()
    left = [p for p in (tmp_path / "evaluations").rglob("*") if p.is_file()]
    assert sorted(left) == sorted(p for p in places if "10" not in p.name)
    opened(tmp_path).unlock()
    assert not [p for p in (tmp_path / "evaluations").rglob("*") if p.is_file()]
