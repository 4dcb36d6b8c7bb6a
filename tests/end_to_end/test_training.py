"""Whole runs on the embedded model, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.composition.catalog import node
from rlkit.composition.compose import compose
from rlkit.composition.config_files import configs_folder
from rlkit.composition.describe import describe
from rlkit.composition.hydra_groups import store_groups
from rlkit.registry import build, entry, names
from tests.certain import HALF
from tests.cli import ROOT, SMALL, metrics, run, without_times

FILES = {p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / "configs/algorithm").glob("*.yaml")}
ALIASES = {name: file["defaults"][0] for name, file in FILES.items() if len(file["defaults"]) == 1}
"""What a composition was called before -> its name."""
ALGORITHMS = sorted(FILES.keys() - ALIASES)
SWAPPED = ("loss", "advantage", "buffer", "anchor", "schedule")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = max(folder.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    return load_file(newest / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def train(*arguments: str, out: str, cwd: Path) -> Path:
    result = run(*SMALL, *arguments, f"output_dir={out}", cwd=cwd)
    assert result.status == 0, result.err
    return cwd / out


SMOKE = ("bapo", "grpo", "online_dpo", "ppo", "remix", "topr")
"""Compositions that the quick suite trains; the slow one trains all."""


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(a, marks=() if a in SMOKE else pytest.mark.slow) for a in ALGORITHMS],
)
def test_every_composition_trains_and_writes_its_folder(algorithm: str, tmp_path: Path) -> None:
    folder = train(f"algorithm={algorithm}", out="out", cwd=tmp_path)
    rows = metrics(folder)
    steps = [(r["step"], "eval/pass@1" in r) for r in rows]
    assert steps == [(0, True), (1, False), (2, False), (2, True)]
    expected = {
        *("rollouts/total", "rollouts/tokens", "reward/mean", "reward/std", "reward/errors"),
        *("reward/timeouts", "completions/mean_length", "completions/clipped_ratio"),
        *("policy/loss", "policy/grad_norm", "policy/entropy", "policy/lr"),
        *("policy/ratio_mean", "policy/ratio_max", "policy/ratio_mean_age_0"),
        *("off_policy/ess", "off_policy/kl", "buffer/size", "buffer/fresh_fraction"),
        *("buffer/age_mean", "buffer/age_max", "buffer/reuse_mean"),
        *("schedule/phase", "schedule/rebirths"),
        *("time/step", "time/rollout", "time/reward", "time/forward", "time/update", "time/sync"),
        *("throughput/tokens_per_s", "memory/peak_mb", "run/processes"),
    }
    if not rows[1]["rollouts/total"]:  # supervised: nothing is generated or rewarded
        expected -= {"reward/mean", "reward/std"}
        expected -= {"completions/mean_length", "completions/clipped_ratio"}
        unknown = ("policy/ratio_", "off_policy/")  # nobody knows how likely demonstrations were
        assert not [key for key in rows[1] if key.startswith(("policy/ratio_", "off_policy/kl"))]
        expected -= {key for key in expected if key.startswith(unknown)}
    assert expected <= rows[1].keys(), expected - rows[1].keys()
    assert {p.name for p in folder.iterdir()} == {
        *("config.yaml", "overrides", "components.json", "metrics.jsonl"),
        *("completions", "evaluations", "checkpoint-2", "report.html", "report"),
    }
    completions = [
        json.loads(x) for x in (folder / "completions" / "step-2.jsonl").read_text().splitlines()
    ]
    assert {"prompt", "response", "reward", "age"} <= completions[0].keys()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    components = json.loads((folder / "components.json").read_text())
    packages = {c["import_path"].partition(":")[0].partition(".")[0] for c in components.values()}
    assert packages <= {"algorithms", "buffers", "anchors", "schedules", "rlkit"}
    assert config["seed"] == 0
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint-2")
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint-2")
    assert model(torch.tensor([tokenizer("1+2+3+4+5=")["input_ids"]])).logits.isfinite().all()


def test_an_algorithm_file_holds_choices_and_no_field_of_a_part() -> None:
    """A part's field there would stay behind when the part is swapped."""
    for algorithm in ALGORITHMS:
        file = FILES[algorithm]
        assert file.keys() <= {"defaults", "train", "rollout", "eval"}, algorithm
        chosen = {key for choice in file["defaults"] for key in choice}
        assert chosen >= {f"override /{kind}" for kind in SWAPPED}, algorithm


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_an_old_name_is_the_composition_and_the_loss_of_the_new_one(
    old: str, new: str, tmp_path: Path
) -> None:
    said = [
        run(choice, "dry_run=true", cwd=tmp_path).out.splitlines()[0]
        for choice in (f"algorithm={old}", f"algorithm={new}", f"loss={old}", f"loss={new}")
    ]
    assert said[0] == said[1] and said[2] == said[3]
    assert f"loss={new}" in said[0] and f"loss={new}" in said[2]
    assert ALIASES == {"topppo": "toppo"} and build("loss", old).config == build("loss", new).config


@pytest.mark.parametrize("kind", SWAPPED)
def test_every_part_swaps_into_the_main_composition(kind: str) -> None:
    """Each registered name of the kind, with its defaults, builds and fits the others."""
    store_groups()
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        raw: Any = OmegaConf.to_container(
            hydra_compose("config", overrides=["output_dir=out"]), resolve=True
        )
    for name in names(kind):
        part = node(entry(kind, name))
        buffer: Any = build(kind, name) if kind == "buffer" else None
        expert = buffer is not None and buffer.gives_expert
        unknown = buffer is not None and buffer.unknown_behavior
        loss = "luffy" if expert else "online_dpo" if unknown else None
        other = {"loss": node(entry("loss", loss))} if loss else {}
        if kind == "advantage" and "anchor:teacher" in build(kind, name).needs:
            other["anchor"] = node(entry("anchor", "teacher"))
        swapped = compose(raw | other | {kind: part})
        assert f"{kind}={name}" in describe(swapped)[0]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_kind_swaps_under_every_composition(algorithm: str, tmp_path: Path) -> None:
    """All at once: whatever a composition leaves behind would be refused as an unknown key."""
    file = FILES[algorithm]
    chosen = {k.removeprefix("override /"): v for c in file["defaults"] for k, v in c.items()}
    others = {kind: next(n for n in names(kind) if n != chosen[kind]) for kind in SWAPPED}
    others |= {"loss": "ppo" if chosen["loss"] != "ppo" else "topr"}
    swaps = [f"{kind}={name}" for kind, name in others.items()]
    result = run(
        f"algorithm={algorithm}",
        *swaps,
        "rollout.num_generations=4",
        "dry_run=true",
        cwd=tmp_path,
    )
    assert result.status == 0, result.err
    assert all(swap in result.out for swap in swaps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "swap", ["loss=topr", "buffer=on_policy", "anchor=none", "schedule=never", "advantage=rloo"]
)
def test_one_swap_of_each_kind_trains(swap: str, tmp_path: Path) -> None:
    assert metrics(train("algorithm=remix", swap, out="out", cwd=tmp_path))


def test_two_runs_of_a_seed_are_identical_and_another_seed_is_not(tmp_path: Path) -> None:
    a, b, c = (
        train(f"seed={s}", "train.steps=4", out=f"run{i}", cwd=tmp_path)
        for i, s in enumerate((5, 5, 6))
    )
    assert without_times(metrics(a)) == without_times(metrics(b))
    assert same(weights(a), weights(b))
    assert (a / "completions/step-4.jsonl").read_text() == (
        b / "completions/step-4.jsonl"
    ).read_text()
    assert without_times(metrics(a)) != without_times(metrics(c))


def test_replaying_nothing_is_the_on_policy_run_bit_for_bit(tmp_path: Path) -> None:
    """buffer=fifo with replay_fraction=0 trains the same weights as buffer=on_policy; only buffer/*
    may differ."""
    a = train("buffer=fifo", "buffer.replay_fraction=0", "train.steps=3", out="a", cwd=tmp_path)
    b = train("buffer=on_policy", "train.steps=3", out="b", cwd=tmp_path)

    def trained(folder: Path) -> list[dict[str, float]]:
        return [
            {k: v for k, v in row.items() if k not in ("buffer/size", "buffer/groups")}
            for row in without_times(metrics(folder))
        ]

    assert trained(a) == trained(b)
    assert same(weights(a), weights(b))


@pytest.mark.slow
def test_micro_batches_do_not_change_a_run(tmp_path: Path) -> None:
    """The same two steps in micro-batches of about three responses: metrics agree to float32
    rounding."""
    for algorithm in ("remix", "bapo"):
        whole = metrics(train(f"algorithm={algorithm}", out=f"{algorithm}-whole", cwd=tmp_path))
        parts = metrics(
            train(
                f"algorithm={algorithm}",
                "train.micro_batch_tokens=70",
                out=f"{algorithm}-parts",
                cwd=tmp_path,
            )
        )
        for key in ("policy/loss", "policy/grad_norm", "policy/entropy", "policy/clip_fraction"):
            assert parts[1][key] == pytest.approx(whole[1][key], rel=2e-4, abs=1e-6), (
                algorithm,
                key,
            )


def test_replayed_groups_come_from_earlier_steps_and_fresh_ones_from_this(tmp_path: Path) -> None:
    batch = ("train.prompts_per_step=5", "train.minibatches=1")
    folder = train("algorithm=remix", "train.steps=4", *batch, out="out", cwd=tmp_path)
    ages: list[set[int]] = []
    for step in range(1, 5):
        rows = [
            json.loads(x)
            for x in (folder / f"completions/step-{step}.jsonl").read_text().splitlines()
        ]
        ages.append({r["age"] for r in rows})
        fresh = [r for r in rows if r["age"] == 0]
        assert len(fresh) == 3 * 8, "5 groups, 40 % of them replayed: 3 fresh groups of 8"
        assert len(rows) == (24 if step == 1 else 40)
        seen = [(r["prompt_id"], r["age"]) for r in rows]
        assert len(set(seen)) * 8 == len(rows), "whole groups, none twice in a step"
    assert ages[0] == {0} and ages[1] == {0, 1} and set().union(*ages) <= {0, 1, 2}
    rows = metrics(folder)
    assert rows[1]["rollouts/total"] == 24 and rows[4]["rollouts/total"] == 96
    assert rows[2]["buffer/fresh_fraction"] == pytest.approx(0.6)


def test_the_rebirth_stops_replay_takes_one_pass_and_moves_the_base(tmp_path: Path) -> None:
    """Every step moves the weights, and one minibatch in one pass is computed before its step."""
    folder = train(
        "algorithm=remix",
        "schedule.at=2",
        "train.steps=4",
        "train.minibatches=1",
        *("train.learning_rate=1e-3", "train.warmup_steps=0"),
        "anchor.beta=0.1",
        HALF,
        out="out",
        cwd=tmp_path,
    )
    rows = [r for r in metrics(folder) if "policy/loss" in r]
    assert [r["schedule/phase"] for r in rows] == [0, 0, 1, 1]
    assert [r["schedule/rebirths"] for r in rows] == [0, 0, 1, 1]
    assert rows[1]["buffer/fresh_fraction"] < 1 and rows[2]["buffer/fresh_fraction"] == 1
    assert rows[2]["rollouts/total"] - rows[1]["rollouts/total"] == 4 * 8
    assert rows[2]["anchor/kl_base"] == pytest.approx(0, abs=1e-6), "the base is the policy itself"
    assert rows[1]["anchor/kl_base"] > 1e-5 and rows[3]["anchor/kl_base"] > 1e-5


@pytest.mark.parametrize(
    "algorithm",
    ["remix", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ppo", "grpo", "flowrl"))],
)
def test_a_resumed_run_continues_exactly(algorithm: str, tmp_path: Path) -> None:
    """Stopped after step 3 by a shorter budget, then continued: the metrics and weights of the
    uninterrupted run."""
    common = [
        f"algorithm={algorithm}",
        "checkpoint.every=1",
        "train.lr_scheduler_type=constant",
        "eval.every=2",
    ]
    common += ["schedule.at=2"] if algorithm == "remix" else []
    whole = train(*common, "train.steps=5", out="whole", cwd=tmp_path)
    part = train(*common, "train.steps=3", out="part", cwd=tmp_path)
    continued = train(*common, "train.steps=5", "resume=auto", out="part", cwd=tmp_path)
    assert part == continued

    def training(folder: Path) -> list[dict[str, float]]:
        return [r for r in without_times(metrics(folder)) if "policy/loss" in r]

    assert training(whole) == training(part)
    assert same(weights(whole), weights(part))
    again = run(*SMALL, *common, "train.steps=5", "resume=auto", "output_dir=part", cwd=tmp_path)
    assert again.status == 0 and "is finished" in again.out
    assert {p.name for p in part.glob("checkpoint-*")} >= {"checkpoint-4", "checkpoint-5"}


@pytest.mark.slow
def test_a_run_killed_between_checkpoints_repeats_the_lost_steps_once(tmp_path: Path) -> None:
    common = ["algorithm=remix", "checkpoint.every=2", "train.steps=4", "eval.every=2"]
    whole = train(*common, out="whole", cwd=tmp_path)
    part = train(*common, out="part", cwd=tmp_path)
    for name in ("checkpoint-4/manifest.json", "report.html"):
        (part / name).unlink()
    with (part / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "half')
    train(*common, "resume=auto", out="part", cwd=tmp_path)
    assert without_times(metrics(whole)) == without_times(metrics(part))
    assert same(weights(whole), weights(part))


@pytest.mark.slow
def test_auto_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text('{"step": 7}\n')
    assert metrics(train("resume=auto", out="out", cwd=tmp_path))[0]["step"] == 0


@pytest.mark.slow
def test_user_parts_by_plugin_and_by_import_path(tmp_path: Path) -> None:
    example = ROOT / "examples" / "my_parts.py"
    folder = train(
        f"plugins=[{example}]",
        "loss=my_loss",
        "buffer=my_buffer",
        "loss.strength=0.5",
        out="a",
        cwd=tmp_path,
    )
    components = json.loads((folder / "components.json").read_text())
    assert (
        components["loss"]["config"]["strength"] == 0.5
        and "MyBuffer" in components["buffer"]["import_path"]
    )
    other = train(
        f"loss={example}:MyLoss", "loss.strength=0.5", "buffer=fifo", out="b", cwd=tmp_path
    )
    assert "MyLoss" in json.loads((other / "components.json").read_text())["loss"]["import_path"]


@pytest.mark.slow
def test_multirun_gives_each_job_a_folder_of_its_own(tmp_path: Path) -> None:
    result = run(
        "-m", *SMALL, "train.steps=1", "algorithm=grpo,topr", "output_dir=sweep", cwd=tmp_path
    )
    assert result.status == 0, result.err
    jobs = [tmp_path / "sweep" / name for name in ("0", "1")]
    assert [len(metrics(job)) for job in jobs] == [3, 3]
    configs = [yaml.safe_load((job / "config.yaml").read_text())["loss"]["name"] for job in jobs]
    assert configs == ["grpo", "topr"]


@pytest.mark.slow
def test_several_runs_without_a_folder_share_one_of_their_own(tmp_path: Path) -> None:
    """The README's multirun, as it stands there."""
    result = run("-m", *SMALL, "train.steps=1", "algorithm=grpo,topr", cwd=tmp_path)
    assert result.status == 0, result.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("sweep-")
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"0", "1"}
    assert run(*SMALL, "train.steps=1", "algorithm=grpo", cwd=tmp_path).status == 0
    assert sorted(p.name.partition("-")[0] for p in (tmp_path / "runs").iterdir()) == [
        "grpo",
        "sweep",
    ]


@pytest.mark.slow
def test_a_loss_with_a_baseline_of_its_own_warns_of_another(tmp_path: Path) -> None:
    result = run("loss=oapl", "dry_run=true", cwd=tmp_path)
    assert result.status == 0
    assert "loss=oapl has its own baseline and is defined with advantage=oapl" in result.out
    for algorithm in ("oapl", "asymre", "opmd_pairwise", "red_drop", "agro", "gvpo", "grpo"):
        assert "Warning" not in run(f"algorithm={algorithm}", "dry_run=true", cwd=tmp_path).out


def test_truncated_sampling_warns_at_the_start(tmp_path: Path) -> None:
    result = run(*SMALL, "rollout.top_p=0.9", "dry_run=true", cwd=tmp_path)
    assert "Warning: top_p=0.9" in result.out
    assert "Warning: top_p" not in run(*SMALL, "dry_run=true", cwd=tmp_path).out


@pytest.mark.parametrize("seed", [0])
def test_remix_learns_the_embedded_task(seed: int, tmp_path: Path) -> None:
    """The first 20 steps of the main job lift held-out sampled pass@1 well above the base."""
    length = ("train.steps=20", "train.lr_scheduler_type=constant")
    result = run("algorithm=remix", f"seed={seed}", *length, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    rows = [r for r in metrics(tmp_path / "out") if "eval/pass@1" in r]
    assert 0.1 < rows[0]["eval/pass@1"] < 0.4
    assert rows[-1]["eval/pass@1"] > rows[0]["eval/pass@1"] + 0.2
