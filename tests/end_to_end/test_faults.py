"""What goes wrong around a run: one clear line, and nothing lost. Writes docs/reliability.md."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from safetensors.torch import load_file

from rlkit.runs.checkpoint import list_checkpoints
from rlkit.runs.folder import RunFolder
from tests.cli import ROOT, SMALL, Result, metrics, run, without_times
from tests.end_to_end.test_kills import KILLER

pytestmark = pytest.mark.slow

FAULTS = ROOT / "tests" / "faults.py"
PAGE = ROOT / "docs" / "reliability.md"
SIZES = tuple(argument for argument in SMALL if not argument.startswith("train.steps"))
COMMON = (
    *SIZES,
    "algorithm=grpo",
    "train.steps=4",
    "checkpoint.every=1",
    "rollout.num_generations=4",
)

TOLD: dict[str, tuple[str, str]] = {}
"""What was tried -> (what the run did, what it said)."""


def start(
    out: str, *args: str, cwd: Path, fault: str = "", kill: str = "", sig: str = ""
) -> Result:
    plugins = f"plugins=[{FAULTS},{KILLER}]"
    env = {"FAULT": fault, "KILL": kill, "SIGNAL": sig or "SIGKILL"}
    return run(*COMMON, plugins, *args, f"output_dir={out}", cwd=cwd, env=env)


def told(tried: str, did: str, said: str) -> None:
    """A row of the page: folders of this machine, numbers of its processes left out."""
    line = " ".join(said.split())
    line = re.sub(r"/\S*?/(out|whole|faults\.py)\b", r"<\1>", line)
    line = re.sub(r"plugins=\S+", "...", line)
    TOLD[tried] = (did, line)


def line_with(text: str, part: str) -> str:
    """The line of a text that has the part in it."""
    found = [line for line in text.splitlines() if part in line]
    assert found, f"no line with {part!r} in:\n{text}"
    return found[0]


def weights(folder: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@cache
def whole() -> Path:
    """An undisturbed run."""
    folder = Path(mkdtemp(prefix="rlkit-whole-"))
    result = start("out", "checkpoint.keep=9", cwd=folder)
    assert result.status == 0, result.err
    return folder / "out"


def copy_of_whole(tmp_path: Path, last: int) -> Path:
    """The undisturbed run as if it had been stopped after a step."""
    out = tmp_path / "out"
    shutil.copytree(whole(), out)
    for step in range(last + 1, 5):
        shutil.rmtree(out / f"checkpoint-{step}")
    return out


def trained(folder: Path) -> list[dict[str, float]]:
    return [row for row in without_times(metrics(folder)) if "policy/lr" in row]


# ---- writing


def test_a_full_disk_while_saving_keeps_what_was_saved_and_goes_on(tmp_path: Path) -> None:
    out = start("out", cwd=tmp_path, fault="full_disk")
    assert out.status == 0, out.err
    line = line_with(out.out, "could not be written")
    assert "checkpoint-2 could not be written" in line and "those before it stay" in line
    assert same(weights(tmp_path / "out"), weights(whole())), "the run itself is not disturbed"
    assert not list((tmp_path / "out").glob(".checkpoint*"))
    told(
        "The disk is full while a checkpoint is written",
        "continues; earlier checkpoints stay",
        line,
    )


def test_a_full_disk_stops_the_run_if_asked_to(tmp_path: Path) -> None:
    out = start("out", "checkpoint.on_error=stop", cwd=tmp_path, fault="full_disk")
    assert out.status == 2 and "checkpoint-2 could not be written" in out.err
    assert [path.name for path in list_checkpoints(tmp_path / "out")] == ["checkpoint-1"]
    assert start("out", "resume=auto", cwd=tmp_path).status == 0
    assert same(weights(tmp_path / "out"), weights(whole()))
    told(
        "The same, with checkpoint.on_error=stop",
        "stops with one line; resume=auto continues",
        out.err,
    )


def test_a_disk_without_room_for_a_line_stops_the_run_in_one_line(tmp_path: Path) -> None:
    out = start("out", cwd=tmp_path, fault="no_room")
    assert out.status == 2 and "cannot be written: File too large" in out.err
    assert len(out.err.splitlines()) == 1
    assert start("out", "resume=auto", cwd=tmp_path).status == 0
    assert same(weights(tmp_path / "out"), weights(whole()))
    assert trained(tmp_path / "out") == trained(whole())
    told(
        "The disk is full while another file of the run is written",
        "stops with one line; resume=auto continues",
        out.err,
    )


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = start("file/out", cwd=tmp_path)
    assert out.status == 2 and len(out.err.splitlines()) == 1
    line = out.err.replace(f"{tmp_path}/", "")
    assert "output_dir=file/out cannot be used: file is a file; choose another" in line
    told("The output folder cannot be made", "stops with one line before training", line)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    held = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        out = start("out", "resume=auto", cwd=tmp_path)
    finally:
        os.close(held)
    assert out.status == 2 and "another run is using out" in out.err
    assert not list((tmp_path / "out").iterdir())
    assert start("out", "train.steps=1", cwd=tmp_path).status == 0, "the lock went with its owner"
    told(
        "A second run is started in the folder of a running one",
        "the second stops with one line",
        out.err,
    )


# ---- damaged checkpoints


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def remove(path: Path) -> None:
    path.unlink()


FILES = (
    *("model.safetensors", "config.json", "tokenizer.json", "run_config.json", "manifest.json"),
    *(
        "state/updater.safetensors",
        "state/updater.json",
        "state/counters.json",
        "state/buffer.json",
    ),
)


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    name: str, damage, tmp_path: Path
) -> None:
    out = copy_of_whole(tmp_path, last=3)
    damage(out / "checkpoint-3" / name)
    folder = RunFolder(out)
    found = folder.find_checkpoint("auto")
    folder.unlock()
    assert found == out / "checkpoint-2"
    if (name, damage) != ("manifest.json", remove):  # such a folder is no checkpoint at all
        assert folder.notes[-1] == f"Continuing from {found}."
        assert "checkpoint-3" in folder.notes[0]


def test_a_run_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    out = copy_of_whole(tmp_path, last=3)
    flip(out / "checkpoint-3" / "model.safetensors")
    again = start("out", "resume=auto", "checkpoint.keep=9", cwd=tmp_path)
    assert again.status == 0, again.err
    line = line_with(again.out, "is damaged")
    assert same(weights(out), weights(whole())) and trained(out) == trained(whole())
    told(
        f"One of {len(FILES)} files of the newest checkpoint is cut, has a flipped bit "
        "or is missing",
        "continues from the checkpoint before",
        line,
    )


def test_nothing_whole_is_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    out = copy_of_whole(tmp_path, last=2)
    for step in (1, 2):
        truncate(out / f"checkpoint-{step}" / "model.safetensors")
    before = (out / "metrics.jsonl").read_text()
    again = start("out", "resume=auto", cwd=tmp_path)
    assert again.status == 2 and "no checkpoint in out is intact" in again.err
    assert (out / "metrics.jsonl").read_text() == before
    told("Every checkpoint is damaged", "stops with one line; nothing is overwritten", again.err)


# ---- another configuration


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["loss.clip_low=0.3"], "loss.clip_low 0.2 -> 0.3"),
        (["loss=ppo"], "loss.name"),
        (["seed=1"], "seed 0 -> 1"),
        (["rollout.temperature=0.9"], "rollout.temperature 1.0 -> 0.9"),
        (["train.steps=5"], "train.steps 4 -> 5"),
        (["correction=[tis]"], "correction.tis.name"),
    ],
)
def test_a_change_of_the_maths_is_refused_by_name(
    change: list[str], named: str, tmp_path: Path
) -> None:
    copy_of_whole(tmp_path, last=2)
    out = start("out", *change, "resume=auto", cwd=tmp_path)
    assert out.status == 2 and len(out.err.splitlines()) == 1
    assert named in out.err and "resume_force=[" in out.err
    if change == ["loss.clip_low=0.3"]:
        told(
            "A run is resumed with another setting of the loss",
            "stops with one line that names the keys",
            out.err,
        )


@pytest.mark.parametrize(
    "change",
    [
        ["eval.problems=4"],
        ["checkpoint.keep=3"],
        ["train.micro_batch_tokens=500"],
        ["train.steps=5", "train.lr_scheduler_type=constant", "resume_force=[train]"],
        ["loss.clip_low=0.3", "resume_force=[loss.clip_low]"],
        ["loss.clip_low=0.3", "loss.clip_high=0.4", "resume_force=[loss]"],
        ["loss=ppo", "resume_force=[loss]"],
        ["correction=[tis]", "resume_force=[correction]"],
        ["rollout.oversample=0.5", "resume_force=[rollout]"],
        ["prompts.order=target", "resume_force=[prompts]"],
        ["prompts.order=easy_first", "resume_force=[prompts]"],
    ],
)
def test_other_changes_and_those_that_are_forced_go_on(change: list[str], tmp_path: Path) -> None:
    copy_of_whole(tmp_path, last=3)
    out = start("out", *change, "resume=auto", cwd=tmp_path)
    assert out.status == 0, out.err


@pytest.mark.parametrize(
    "change",
    [
        ["algorithm=remix"],
        ["anchor=ema", "resume_force=[anchor]"],
        ["buffer=fifo", "resume_force=[buffer]"],
        ["advantage=gae", "resume_force=[advantage]"],
    ],
)
def test_a_part_whose_state_the_checkpoint_lacks_is_refused(
    change: list[str], tmp_path: Path
) -> None:
    copy_of_whole(tmp_path, last=2)
    out = start("out", *change, "resume=auto", cwd=tmp_path)
    assert out.status == 2 and len(out.err.splitlines()) == 1, out.err
    assert "out/checkpoint-2 holds the state of other parts" in out.err
    assert "model.name=out/checkpoint-2 output_dir=<new folder>" in out.err


def test_more_steps_are_fine_where_nothing_looks_ahead(tmp_path: Path) -> None:
    constant = "train.lr_scheduler_type=constant"
    assert start("out", constant, "train.steps=1", cwd=tmp_path).status == 0
    out = start("out", constant, "train.steps=2", "resume=auto", cwd=tmp_path)
    assert out.status == 0, out.err


# ---- signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(name: str, tmp_path: Path) -> None:
    out = start("out", cwd=tmp_path, kill="reward:4", sig=name)
    assert out.status == {"SIGINT": 130, "SIGTERM": 143}[name], out.err
    line = line_with(out.out, "Stopped after step")
    assert "Stopped after step 2 of 4, saved" in line
    command = line.partition("To continue: ")[2]
    assert command.startswith("python -m rlkit.run ") and "resume=auto" in command
    assert start("out", "resume=auto", cwd=tmp_path).status == 0
    assert same(weights(tmp_path / "out"), weights(whole()))
    assert without_times(metrics(tmp_path / "out")) == without_times(metrics(whole()))
    if name == "SIGINT":
        told(
            "Ctrl-C or SIGTERM",
            "finishes the step, saves a checkpoint, exits with status 130 or 143",
            line,
        )


def test_a_second_signal_stops_at_once_and_harms_nothing(tmp_path: Path) -> None:
    """Both arrive in the same step, the second inside a checkpoint."""
    plugin = tmp_path / "twice.py"
    plugin.write_text(
        "import os, signal, rlkit.runs.checkpoint as c, rlkit.rewards.scoring as s\n"
        "score, calls = s.RewardSet.score, []\n"
        "def one(self, *a):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return score(self, *a)\n"
        "s.RewardSet.score = one\n"
        "sync = c._sync\n"
        "def two(path):\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return sync(path)\n"
        "c._sync = two\n"
    )
    out = run(*COMMON, f"plugins=[{plugin}]", "output_dir=out", cwd=tmp_path)
    assert out.status == 130 and "stopped at once" in out.err and len(out.err.splitlines()) == 1
    assert start("out", "resume=auto", cwd=tmp_path).status == 0
    assert same(weights(tmp_path / "out"), weights(whole()))
    told("Ctrl-C twice", "stops at once; the last checkpoint is intact", out.err)


# ---- rewards


@pytest.mark.parametrize(
    ("reward", "does", "said"),
    [
        ("raises", "raises", "KeyError"),
        ("nan", "returns NaN", "nan"),
        ("inf", "returns infinity", "inf"),
        ("short", "returns too few numbers", "15"),
        ("hangs", "hangs", "has not returned within 0.2 s"),
    ],
)
def test_a_reward_that_is_wrong_stops_the_run_in_one_line(
    reward: str, does: str, said: str, tmp_path: Path
) -> None:
    limit = ["reward.hangs.time_limit=0.2"] if reward == "hangs" else []
    out = start("out", f"reward=[{FAULTS}:{reward}]", *limit, "eval.problems=4", cwd=tmp_path)
    assert out.status == 2 and len(out.err.splitlines()) == 1, out.err
    assert said in out.err or reward == "short"
    assert reward in out.err
    told(f"A reward function {does}", "stops with one line", out.err)


def test_none_means_that_a_reward_does_not_apply(tmp_path: Path) -> None:
    out = start("out", f"reward=[{FAULTS}:none]", cwd=tmp_path)
    assert out.status == 0, out.err
    rows = (tmp_path / "out" / "completions" / "step-1.jsonl").read_text().splitlines()
    assert len(rows) == 8, "half of 16 responses have no reward"
    told("A reward function gives None for some responses", "leaves those responses out", "")


def test_equal_rewards_everywhere_change_nothing(tmp_path: Path) -> None:
    out = start("out", f"reward=[{FAULTS}:same]", "anchor=base", cwd=tmp_path)
    assert out.status == 0, out.err
    assert same(weights(tmp_path / "out", 4), weights(tmp_path / "out", 3))
    told("Every reward of a step is the same", "continues; the weights do not change", "")


# ---- numbers and memory


def test_an_update_that_is_not_finite_is_skipped_counted_and_written_down(tmp_path: Path) -> None:
    out = start("out", "loss=sick", cwd=tmp_path)
    assert out.status == 0, out.err
    line = line_with(out.out, "was skipped")
    rows = [row for row in metrics(tmp_path / "out") if "policy/lr" in row]
    assert [row["policy/skipped_steps"] for row in rows] == [0, 1, 0, 0]
    assert all(float("-inf") < v < float("inf") for row in rows for v in row.values())
    written = (tmp_path / "out" / "nonfinite" / "step-2.jsonl").read_text().splitlines()
    assert len(written) == 2 * 4 and "prompt" in json.loads(written[0]), (
        "one minibatch of two groups"
    )
    told("A loss or gradient is NaN or infinite", "skips the update and continues", line)


def test_updates_that_stay_not_finite_stop_the_run(tmp_path: Path) -> None:
    out = start("out", "loss=sick", "loss.last=99", "train.max_skipped_steps=3", cwd=tmp_path)
    assert out.status == 2 and "3 updates in a row" in out.err and len(out.err.splitlines()) == 1
    assert next(path.name for path in list_checkpoints(tmp_path / "out")) == "checkpoint-1"
    told("The same for train.max_skipped_steps updates in a row", "stops with one line", out.err)


def test_a_step_that_does_not_fit_is_tried_with_smaller_micro_batches(tmp_path: Path) -> None:
    """200 tokens do not fit, 100 do: the run is the one with 100 from the start, up to rounding:
    forwards before the first that did not fit are in larger micro-batches."""
    sizes = ("loss=remix", "buffer=fifo", "train.packing=padded")
    out = start("out", *sizes, "train.micro_batch_tokens=200", cwd=tmp_path, fault="little_memory")
    assert out.status == 0, out.err
    small = start("small", *sizes, "train.micro_batch_tokens=100", cwd=tmp_path)
    assert small.status == 0, small.err
    expected = weights(tmp_path / "small")
    for name, found in weights(tmp_path / "out").items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-6)
    for halved, from_start in zip(
        trained(tmp_path / "out"), trained(tmp_path / "small"), strict=True
    ):
        assert halved == pytest.approx(from_start, rel=1e-4, abs=1e-6)
    rows = [row for row in metrics(tmp_path / "out") if "policy/lr" in row]
    tokens = [row["memory/micro_batch_tokens"] for row in rows]
    assert tokens == [200, 100, 100, 100], "the first batch, without replay, fits"
    told(
        "A forward does not fit into memory",
        "halves the micro-batches; the gradient is the same",
        "",
    )


def test_a_step_that_never_fits_stops_the_run(tmp_path: Path) -> None:
    out = start("out", cwd=tmp_path, fault="no_memory")
    assert out.status == 2 and "out of memory" in out.err and len(out.err.splitlines()) == 1
    line = re.sub(r"of \d+ tokens", "of 22 tokens", out.err)  # as long as the model wrote one
    told("A single sequence does not fit", "stops with one line", line)


def test_responses_without_a_token_are_trained_around(tmp_path: Path) -> None:
    out = start("out", "rollout=mute", "loss=remix", "buffer=fifo", cwd=tmp_path)
    assert out.status == 0, out.err
    rows = [row for row in metrics(tmp_path / "out") if "policy/lr" in row]
    assert len(rows) == 4 and all(row["policy/grad_norm"] >= 0 for row in rows)
    told("A response has no token", "continues", "")


def test_a_tokenizer_without_a_padding_token_or_a_chat_template(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(whole() / "checkpoint-4", base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("pad_token", None)
    assert "chat_template" not in settings
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    out = start("out", f"model.name={base}", "train.steps=1", cwd=tmp_path)
    assert out.status == 0, out.err
    told("The tokenizer has no padding token and no chat template", "continues", "")


# ---- keeping


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    out = start("out", "eval.every=1", "checkpoint.keep=1", "train.steps=6", cwd=tmp_path)
    assert out.status == 0, out.err
    scores = {r["step"]: r["eval/pass@1"] for r in metrics(tmp_path / "out") if "eval/pass@1" in r}
    best = max((score, step) for step, score in scores.items() if step > 0)[1]
    kept = {path.name for path in list_checkpoints(tmp_path / "out")}
    assert kept == {"checkpoint-6", f"checkpoint-{best}"}


# ---- the page

HEAD = """# Failures and how a run responds

Written by `RLKIT_WRITE_DOCS=1 pytest tests/end_to_end/test_faults.py` from the runs it makes.
Kills at any moment are tested in `tests/end_to_end/test_kills.py`: a run killed inside a rollout,
an update, a reward call, a checkpoint or a line of its metrics and resumed with `resume=auto` has
the metrics and the weights of an uninterrupted run, bit for bit.
`tests/end_to_end/test_kills_in_turns.py` does so with ten kinds of runs in several turns, also
inside a tool's call, and kills them 100 times with
`RLKIT_KILLS=10 python -m pytest -m slow tests/end_to_end/test_kills_in_turns.py`.
With `rollout.mode=ahead` or `async` the kill may strike the rollout process: the run then ends with
status 2 and one line.

| what was tried | what the run did | what it said |
|---|---|---|
"""


def test_the_page_says_what_happened(request: pytest.FixtureRequest) -> None:
    """Only after all the tests above ran together."""
    if len(TOLD) < 20:
        pytest.skip("run the whole file")
    cells = [(tried, did, said or "(no message)") for tried, (did, said) in TOLD.items()]
    text = HEAD + "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells
    )
    if os.environ.get("RLKIT_WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "run it with RLKIT_WRITE_DOCS=1"
