"""Runs that store their responses, and runs that train on them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rlkit.stored.export import export
from rlkit.stored.read import FIRST_ID, StoredRollouts
from rlkit.stored.write import shards
from tests.cli import SMALL, Result, metrics, ranks, run

KILLER = Path(__file__).parents[1] / "killer.py"
STEPS = 4
SIZES = tuple(a for a in SMALL if not a.startswith(("train.steps", "eval.every")))
COMMON = (*SIZES, f"train.steps={STEPS}", "rollout.num_generations=4", "eval.every=null")


def go(*arguments: str, **env: str) -> Result:
    return run(*arguments, cwd=Path.cwd(), env=env)


def stored(folder: Path, *overrides: str) -> Path:
    result = go(*COMMON, "rollout.save=true", f"output_dir={folder}", *overrides)
    assert result.status == 0, result.err
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("source") / "run", "algorithm=grpo")


@pytest.mark.slow
def test_every_response_is_stored_as_it_was_trained(source: Path) -> None:
    """Groups, rewards and texts of the files are those of completions/, step by step."""
    rollouts = StoredRollouts(str(source))
    groups = rollouts.groups(range(len(rollouts)))
    rows = [
        json.loads(line)
        for step in range(1, STEPS + 1)
        for line in (source / "completions" / f"step-{step}.jsonl").read_text().splitlines()
    ]
    samples = [sample for group in groups for sample in group.samples]
    assert [s.reward for s in samples] == [row["reward"] for row in rows]
    assert [g.prompt.text_or_messages for g in groups for _ in g.samples] == [
        row["prompt"] for row in rows
    ]
    assert metrics(source)[-1]["rollouts/total"] == len(samples)
    assert {s.sample_id for s in samples} == {FIRST_ID - n for n in range(len(samples))}
    for sample in samples:
        assert len(sample.behavior_logp) == len(sample.response_ids) == len(sample.loss_mask)
        assert (sample.behavior_logp <= 0).all() and not (sample.behavior_logp == 0).all()


def test_other_tools_read_it(source: Path) -> None:
    import datasets
    import pandas as pd

    data = source / "rollouts" / "data"
    found = datasets.load_dataset(
        "parquet", data_dir=str(data), split="train", cache_dir=str(source / "cache")
    )
    frame = pd.read_parquet(data)
    total = metrics(source)[-1]["rollouts/total"]
    assert len(found) == len(frame) == total
    assert found[0]["response_ids"] == list(frame["response_ids"][0])
    assert set(frame["step"]) == set(range(1, STEPS + 1))
    card = json.loads((source / "rollouts" / "card.json").read_text())
    assert card["model"] == "embedded" and card["temperature"] == 1.0 and card["license"] is None


def test_a_run_on_stored_rollouts_generates_nothing(source: Path, tmp_path: Path) -> None:
    """Everything is replayed and of age step, and on the first pass of the first step the policy is
    the base model that sampled step 1's responses: only later steps' have a ratio other than 1."""
    out = tmp_path / "out"
    result = go(
        *COMMON, "algorithm=topr", "buffer=stored", f"buffer.path={source}", f"output_dir={out}"
    )
    assert result.status == 0, result.err
    steps = [record for record in metrics(out) if record["step"] > 0 and "policy/loss" in record]
    assert [record["rollouts/total"] for record in steps] == [0] * STEPS
    assert [record["buffer/fresh_fraction"] for record in steps] == [0.0] * STEPS
    assert [record["off_policy/staleness_mean"] for record in steps] == [1.0, 2.0, 3.0, 4.0]
    assert all(math.isfinite(record["policy/loss"]) for record in steps)
    before = load_file(source / "checkpoint-4" / "model.safetensors")
    after = load_file(out / "checkpoint-4" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_killed_writer_leaves_no_row_twice_and_none_out(source: Path, tmp_path: Path) -> None:
    """Killed while it logs step 3, whose shard is written, after the checkpoint of step 2, and
    continued: the shards are those of the uninterrupted run."""
    folder = tmp_path / "run"
    arguments = (
        *COMMON,
        "algorithm=grpo",
        "rollout.save=true",
        "checkpoint.every=2",
        f"plugins=[{KILLER}]",
        f"output_dir={folder}",
    )
    killed = go(*arguments, KILL="log:4")
    assert killed.status not in (0, 2), killed.err
    result = go(*arguments, "resume=auto", KILL="")
    assert result.status == 0, result.err
    ours, theirs = StoredRollouts(str(folder)), StoredRollouts(str(source))
    assert ours.names == theirs.names
    for a, b in zip(ours.groups(range(len(ours))), theirs.groups(range(len(theirs))), strict=True):
        for x, y in zip(a.samples, b.samples, strict=True):
            assert torch.equal(x.response_ids, y.response_ids)
            assert torch.equal(x.behavior_logp, y.behavior_logp)


@pytest.mark.slow
def test_offline_training_resumes_exactly(source: Path, tmp_path: Path) -> None:
    """Killed while it logs step 3, after the checkpoint of step 2."""
    offline = ("algorithm=topr", "buffer=stored", f"buffer.path={source}", "checkpoint.every=2")
    arguments = (*COMMON, *offline, f"plugins=[{KILLER}]")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert go(*arguments, f"output_dir={whole}", KILL="").status == 0
    assert go(*arguments, f"output_dir={parts}", KILL="log:4").status not in (0, 2)
    result = go(*arguments, f"output_dir={parts}", "resume=auto", KILL="")
    assert result.status == 0, result.err
    one = load_file(whole / f"checkpoint-{STEPS}" / "model.safetensors")
    two = load_file(parts / f"checkpoint-{STEPS}" / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def changed(source: Path, out: Path, steps: str, **card: object) -> Path:
    """The responses of some steps without their log-probs, from a run with another card."""
    first, last = map(int, steps.split(":"))
    export(source, out, (first, last))
    for path in shards(out):
        table = pq.read_table(path, partitioning=None)
        about = json.loads(table.schema.metadata[b"rlkit"]) | {"unknown_logp": True, **card}
        nulls = pa.nulls(len(table), table.schema.field("behavior_logp").type)
        at = table.schema.get_field_index("behavior_logp")
        table = table.set_column(at, "behavior_logp", nulls)
        pq.write_table(table.replace_schema_metadata({"rlkit": json.dumps(about)}), path)
    return out


def trained(data: Path, out: Path, *overrides: str) -> dict[str, float]:
    """The metrics of one offline step."""
    offline = ("algorithm=topr", "buffer=stored", f"buffer.path={data}", "train.steps=1")
    result = go(*SIZES, "eval.every=null", *offline, f"output_dir={out}", *overrides)
    assert result.status == 0, result.err
    return next(record for record in metrics(out) if "policy/loss" in record)


@pytest.mark.slow
def test_computed_log_probs_train_as_the_stored_ones(source: Path, tmp_path: Path) -> None:
    """Those of step 1 are the base model's, so that it gives them again; also from the texts."""
    export(source, tmp_path / "whole", (1, 1))
    stored = trained(tmp_path / "whole", tmp_path / "a")
    scored = changed(source, tmp_path / "none", "1:1")
    found = trained(scored, tmp_path / "b", "buffer.score_with=base")
    other = changed(source, tmp_path / "other", "1:1", tokenizer="another")
    encode = ("buffer.score_with=base", "buffer.other_tokenizer=encode")
    again = trained(other, tmp_path / "c", *encode)
    hot = changed(source, tmp_path / "hot", "1:1", temperature=0.5)
    rescored = ("buffer.score_with=base", "buffer.other_temperature=rescore")
    cool = trained(hot, tmp_path / "d", *rescored)
    for record in (found, again, cool):
        assert record["buffer/recomputed_logp"] == 1.0
        for name in ("policy/loss", "policy/grad_norm", "policy/ratio_mean"):
            assert record[name] == pytest.approx(stored[name], rel=1e-4), name
    assert again["buffer/encoded"] == 16 and again["buffer/encoded_length_ratio"] == 1.0


@pytest.mark.slow
def test_a_run_with_computed_log_probs_resumes_exactly(source: Path, tmp_path: Path) -> None:
    """Killed while it logs step 3, after the checkpoint of step 2, when more had been computed."""
    data = changed(source, tmp_path / "data", "1:4")
    offline = ("algorithm=topr", "buffer=stored", f"buffer.path={data}", "buffer.score_with=base")
    arguments = (*COMMON, *offline, "checkpoint.every=2", f"plugins=[{KILLER}]")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert go(*arguments, f"output_dir={whole}", KILL="").status == 0
    assert go(*arguments, f"output_dir={parts}", KILL="log:4").status not in (0, 2)
    assert len(list((parts / "buffer" / "scores").iterdir())) == 3
    result = go(*arguments, f"output_dir={parts}", "resume=auto", KILL="")
    assert result.status == 0, result.err
    one = load_file(whole / f"checkpoint-{STEPS}" / "model.safetensors")
    two = load_file(parts / f"checkpoint-{STEPS}" / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_two_processes_compute_the_same_log_probs(source: Path, tmp_path: Path) -> None:
    data = changed(source, tmp_path / "data", "1:4")
    offline = ("algorithm=topr", "buffer=stored", f"buffer.path={data}", "buffer.score_with=base")
    assert go(*COMMON, *offline, f"output_dir={tmp_path / 'one'}").status == 0
    words = (*COMMON, *offline, f"output_dir={tmp_path / 'two'}")
    result = ranks("rlkit.run", *words, cwd=Path.cwd())
    assert result.status == 0, result.err
    alone, both = (
        [r["policy/loss"] for r in metrics(tmp_path / name) if "policy/loss" in r]
        for name in ("one", "two")
    )
    assert both == pytest.approx(alone, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["buffer.path=null"], "buffer=stored: set buffer.path"),
        (["buffer.path=/nowhere"], "no such folder or file"),
        (["buffer.path={source}/checkpoint-4"], "holds no rollouts"),
        (["buffer.path={source}", "rollout.temperature=0.7"], "temperature 1.0"),
        (["buffer.path={source}", "buffer.other_temperature=rescore"], "needs buffer.score_with"),
        (["buffer.path={source}", "buffer.score_with=./nowhere"], "there is no such folder"),
    ],
)
def test_what_does_not_suit_is_one_line(
    source: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    filled = [o.format(source=source) for o in overrides]
    out = tmp_path / "out"
    result = go(*COMMON, "algorithm=topr", "buffer=stored", *filled, f"output_dir={out}")
    assert result.status == 2
    assert said in result.err and len(result.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_stored_groups_stand_beside_new_ones(source: Path, tmp_path: Path) -> None:
    """Half of four groups is stored: two fresh groups of four responses a step."""
    out = tmp_path / "out"
    result = go(
        *COMMON,
        "algorithm=topr",
        "buffer=mix",
        "buffer.share=0.5",
        "buffer.second.name=stored",
        f"+buffer.second.path={source}",
        f"output_dir={out}",
    )
    assert result.status == 0, result.err
    steps = [r for r in metrics(out) if "policy/loss" in r]
    assert [r["rollouts/total"] for r in steps] == [8, 16, 24, 32]
    assert [r["buffer/fresh_fraction"] for r in steps] == [0.5] * STEPS
