"""Several processes compute what one computes: gradients, metrics, runs, errors, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rlkit
from rlkit.batch import Prompt, Request
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.interfaces import State
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig, RolloutEngine
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.shared import SharedEngine
from rlkit.runs.checkpoint import list_checkpoints, load_tree
from tests.cli import ROOT, SMALL, Result, metrics, ranks, run
from tests.group_cases import HALF, cases
from tests.tiny import make_policy, make_prompts

pytestmark = pytest.mark.slow

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2")
ACCELERATE = (
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_port=0",
)
ACCELERATE_CONFIG = (
    "accelerate.commands.launch",
    "--num_processes=2",
    "--main_process_port=0",
    "--config_file",
)
NORM, HEAD_NORM, HALF_NORM = 1e-6, 1e-5, 2e-2
"""Norm of the difference of two gradients over their norm: in float32; of a head, whose errors of
about 15 cancel within a group; and in bfloat16, whose products are rounded to 0.4 % and differ with
the rows they are computed beside."""


def start(*arguments: str, cwd: Path, launcher: Sequence[str] = TORCHRUN) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", *arguments],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=300)
    return Result(process.returncode, out, err)


def launch(module: str, *arguments: str, cwd: Path, launcher: Sequence[str] = ()) -> Result:
    """A run of two processes; without a launcher by copies of one that has the imports done."""
    if not launcher:
        return ranks(module, *arguments, cwd=cwd)
    return finish(start(module, *arguments, cwd=cwd, launcher=launcher))


# ---- how the work is divided


class Imagined(Processes):
    """One of several processes that nobody started."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.world_size = rank, count


def test_things_are_divided_without_overlap_and_evenly() -> None:
    for count in (1, 2, 3, 8):
        for things in (0, 1, 7, 16):
            parts = [range(things)[Imagined(rank, count).share(things)] for rank in range(count)]
            assert [i for part in parts for i in part] == list(range(things))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---- engines


def answers_of(engine: RolloutEngine[Any], requests: Sequence[Request], **how: Any) -> list[Any]:
    found = engine.generate(GenerationCall(requests, ("rollout", 3, 0), **how))
    return [[(g.response_ids.tolist(), g.logp.tolist()) for g in group] for group in found]


def test_a_part_of_the_requests_gets_the_draws_it_has_among_all() -> None:
    """Groups of different sizes, so that rows and requests cannot be taken for each other."""
    policy = make_policy()
    engine = HFRollout(HFConfig(max_completion_length=6))
    engine.start(policy, seed=1)
    prompts = make_prompts(policy, ["1+1=", "2+2=", "3+3=", "4+4="])
    requests = [Request(prompt=p, n=n) for p, n in zip(prompts, (3, 1, 2, 4), strict=True)]
    whole = answers_of(engine, requests)
    for part in (slice(0, 1), slice(1, 3), slice(3, 4)):
        found = answers_of(engine, requests, part=part)
        for group, expected in zip(found, whole[part], strict=True):
            assert [ids for ids, _ in group] == [ids for ids, _ in expected]


class Outside(RolloutEngine[RolloutConfig]):
    """Stands for servers."""

    hosted_by = "main process"
    Config = RolloutConfig

    def start(self, policy: Any, seed: int) -> None:
        self.calls = ["start"]

    def sync(self, step: int) -> None:
        self.calls.append("sync")

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.calls.append(f"generate {len(call.own)}")
        return [[one()] * request.n for request in call.own]


def one() -> Generation:
    return Generation(
        response_ids=torch.tensor([3]),
        logp=torch.zeros(1),
        policy_version=torch.ones(1, dtype=torch.int32),
        finish_reason="stop",
        extras={},
    )


def test_the_first_process_alone_asks_what_is_outside() -> None:
    prompt = Prompt(prompt_id="a", text_or_messages="", ids=torch.tensor([3]), columns={})
    inner = Outside()
    engine = SharedEngine(inner, Imagined(0, 1))
    engine.start(make_policy(), 0)
    engine.sync(1)
    call = GenerationCall([Request(prompt=prompt, n=2)] * 3, ("rollout", 1, 0))
    found = engine.generate(call)
    assert [len(group) for group in found] == [2, 2, 2]
    assert inner.calls == ["start", "sync", "generate 3"]
    assert not engine.uses_policy, "no process needs all weights for what others generate"
    assert SharedEngine(HFRollout(), Imagined(0, 2)).uses_policy
    later = SharedEngine(Outside(), Imagined(1, 2))
    assert later.share(call) == slice(0, 0)


# ---- gradients, metrics and scores


@cache
def computed() -> tuple[State, State, State]:
    """By one process alone, and by the first and the second of two."""
    folder = Path(mkdtemp())
    done = launch("tests.group_cases", str(folder), cwd=ROOT)
    assert done.status == 0, done.err
    return cases(SINGLE), load_tree(folder / "rank-0"), load_tree(folder / "rank-1")


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm()) if a.any() else float(b.norm())


def test_the_gradient_is_that_of_one_process() -> None:
    """Every loss, every aggregation, a process without a valid token, one without a response, a
    critic, the module of a loss."""
    alone, first, second = computed()
    assert {name for name, case in alone.items() if "head" in case} >= {
        "loss flowrl",
        "head all token",
    }
    assert {f"loss {name}" for name in rlkit.names("loss")} < alone.keys() == first.keys()
    assert {name for name, case in alone.items() if not case["gradient"].any()} <= {"loss sft"}
    for name, case in alone.items():
        for key in {"gradient", "critic", "head"} & case.keys():
            bound = {HALF: HALF_NORM}.get(name, HEAD_NORM if key == "head" else NORM)
            assert distance(case[key], first[name][key]) < bound, (name, key)
            assert case[key].dtype == torch.float32
            assert torch.equal(first[name][key], second[name][key]), (name, key)


def test_log_probs_values_metrics_and_scores_are_those_of_one_process() -> None:
    alone, first, second = computed()
    for name, case in ((n, c) for n, c in alone.items() if n != HALF):
        for key in ("prox_logp", "anchor_logp", "values", "weights"):
            torch.testing.assert_close(first[name][key], case[key], atol=1e-5, rtol=0)
            assert torch.equal(first[name][key], second[name][key])
        for a, b in zip(case["logp"], first[name]["logp"], strict=True):
            torch.testing.assert_close(b, a, atol=1e-5, rtol=0)
        assert first[name]["metrics"] == second[name]["metrics"]
        padding = {"perf/padding_fraction": first[name]["metrics"]["perf/padding_fraction"]}
        expected = pytest.approx(case["metrics"] | padding, rel=1e-5, abs=1e-7)
        assert first[name]["metrics"] == expected, "other micro-batches have other padding"
    assert 0 < alone["lr_ess"]["metrics"]["policy/lr_ess_factor"] < 0.99


# ---- whole runs

RUN = (
    *(s for s in SMALL if not s.startswith("train.steps")),
    "train.steps=5",
    "buffer.storage=disk",
    "schedule.at=5",
    "checkpoint.every=1",
    "checkpoint.keep=3",
    "output_dir=run",
)


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def forget(folder: Path, *steps: int) -> None:
    """Remove checkpoints, as if the run had been killed before them."""
    for step in steps:
        shutil.rmtree(folder / f"checkpoint-{step}")


def assert_same_weights(found: Path, expected: Path, step: int) -> None:
    torch.testing.assert_close(weights(found, step), weights(expected, step), atol=1e-5, rtol=1e-4)


def assert_alike(found: Path, expected: Path, processes: int) -> None:
    """The same run up to the rounding of its sums."""
    rows = metrics(found)
    assert len(rows) == len(metrics(expected))
    for a, b in zip(rows, metrics(expected), strict=True):
        assert a.keys() == b.keys()
        assert a.get("run/processes", processes) == processes
        for key in a:
            if not key.startswith(("time/", "throughput/", "memory/", "run/")):
                assert a[key] == pytest.approx(b[key], rel=2e-3, abs=1e-6), (a["step"], key)
    last = len(rows) - 2
    assert_same_weights(found, expected, last)
    for path in (expected / "completions").glob("*.jsonl"):
        alike = responses(found / "completions" / path.name)
        assert [row for row, _ in alike] == [row for row, _ in responses(path)]
        advantages = [advantage for _, advantage in alike]
        assert advantages == pytest.approx([a for _, a in responses(path)], rel=2e-3, abs=1e-6)


def responses(path: Path) -> list[tuple[dict[str, Any], float]]:
    """The rows of completions/step-N.jsonl, and the advantage of each, which sums round."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row, row.pop("advantage")) for row in rows]


@cache
def by_one() -> Path:
    folder = Path(mkdtemp())
    done = run(*RUN, cwd=folder)
    assert done.status == 0, done.err
    return folder / "run"


def test_two_processes_run_what_one_runs(tmp_path: Path) -> None:
    """ReMix with its rebirth, a buffer on disk, an evaluation, checkpoints."""
    done = launch("rlkit.run", *RUN, cwd=tmp_path, launcher=TORCHRUN)
    assert done.status == 0, done.err
    assert done.out.count("Done: 5 steps") == 1 and done.out.count("A step trains") == 1
    found = tmp_path / "run"
    assert_alike(found, by_one(), processes=2)
    assert [p.name for p in list_checkpoints(found)] == [p.name for p in list_checkpoints(by_one())]
    files = sorted(p.name for p in (found / "checkpoint-5").iterdir())
    assert files == sorted(p.name for p in (by_one() / "checkpoint-5").iterdir())
    kept = sorted(p.name for p in (found / "buffer").iterdir())
    assert kept == sorted(p.name for p in (by_one() / "buffer").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "anchor", "where"),
    [
        ("remix", "base", "little_memory_on_the_second"),
        ("online_dpo", "base", "little_memory_on_the_second"),
        ("remix", "none", "little_memory_in_updates_of_the_second"),
    ],
)
def test_ranks_halve_together_where_one_has_too_little_memory(
    loss: str, anchor: str, where: str, tmp_path: Path
) -> None:
    """200 tokens do not fit on the second rank: the run is the one with 100 from the start.

    It notices in the forward of the base, or in that of an update, whose micro-batches are several.
    """
    padded = "train.packing=padded"
    asked = ("rlkit.run", *SMALL, padded, "algorithm=grpo", f"loss={loss}", f"anchor={anchor}")
    small = launch(*asked, "output_dir=small", "train.micro_batch_tokens=100", cwd=tmp_path)
    assert small.status == 0, small.err
    fault = {"FAULT": where}
    faulty = (f"plugins=[{ROOT}/tests/faults.py]", "train.micro_batch_tokens=200")
    halved = ranks(*asked, "output_dir=halved", *faulty, cwd=tmp_path, env=fault)
    assert halved.status == 0, halved.err
    rows = [row for row in metrics(tmp_path / "halved") if "policy/lr" in row]
    assert [row["memory/micro_batch_tokens"] for row in rows] == [100, 100]
    found, expected = (
        load_file(tmp_path / name / "checkpoint-2" / "model.safetensors")
        for name in ("halved", "small")
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """SIGTERM to the launcher stops all after a step with a checkpoint; one process goes on, as an
    uninterrupted run would have."""
    process = start("rlkit.run", *RUN, cwd=tmp_path)
    log = tmp_path / "run" / "metrics.jsonl"
    while not log.exists() or '"step": 1' not in log.read_text():
        assert process.poll() is None, finish(process).err
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    done = len(metrics(tmp_path / "run")) - 1
    assert stopped.out.count("Stopping after this step") == 1
    assert f"Stopped after step {done} of 5" in stopped.out, stopped.err
    assert "(launched with 2 processes, as before) -m rlkit.run" in stopped.out
    resumed = run(*RUN, "resume=auto", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert "Done: 5 steps" in resumed.out
    assert_same_weights(tmp_path / "run", by_one(), 5)


def test_a_run_of_one_process_goes_on_with_two(tmp_path: Path) -> None:
    """Both read its state, and the groups on disk, of which step 4 replays some."""
    copied = tmp_path / "run"
    shutil.copytree(by_one(), copied)
    forget(copied, 4, 5)
    done = launch("rlkit.run", *RUN, "resume=auto", cwd=tmp_path)
    assert done.status == 0, done.err
    (replayed,) = (row for row in metrics(copied) if row["step"] == 4)
    assert replayed["buffer/age_max"] > 0
    assert_same_weights(copied, by_one(), 5)


DIVIDED = (*RUN, "train.micro_batch_tokens=120")
DEEPSPEED = (*ACCELERATE_CONFIG, str(ROOT / "configs" / "accelerate" / "deepspeed_zero2.yaml"))
DIVIDING = [
    pytest.param("tests.sharded_run", (), id="fsdp2"),
    pytest.param("rlkit.run", DEEPSPEED, id="zero2", marks=pytest.mark.deepspeed),
]
"""FSDP2 on the CPU without accelerate, which wants GPUs for it, and ZeRO 2 as it is shipped."""


@pytest.mark.parametrize(("module", "launcher"), DIVIDING)
def test_divided_moments_train_like_whole_ones_and_are_saved_whole(
    module: str, launcher: Sequence[str], tmp_path: Path
) -> None:
    """Generation, references, updates, the rebirth; a checkpoint that one process reads, and that
    one wrote. Rows do not divide into equal micro-batches, so that some forwards are empty."""
    if launcher is DEEPSPEED:
        pytest.importorskip("deepspeed")

    def go_on(*arguments: str) -> None:
        done = launch(module, *DIVIDED, *arguments, cwd=tmp_path, launcher=launcher)
        assert done.status == 0, done.err

    go_on()
    found = tmp_path / "run"
    assert_alike(found, by_one(), processes=2)
    state, expected = (moments(folder, 4) for folder in (found, by_one()))
    assert state.keys() == expected.keys() and len(state) > 20
    for key, entry in expected.items():
        assert state[key].keys() == entry.keys()
        for name in entry:
            torch.testing.assert_close(state[key][name], entry[name], atol=1e-6, rtol=2e-2)
    forget(found, 4, 5)
    go_on("resume=auto")
    assert_same_weights(found, by_one(), 5)
    forget(found, 5)
    alone = run(*DIVIDED, "resume=auto", cwd=tmp_path)
    assert alone.status == 0, alone.err
    assert_same_weights(found, by_one(), 5)


def moments(folder: Path, step: int) -> State:
    updater = load_tree(folder / f"checkpoint-{step}" / "state" / "updater")
    found: State = updater["optimizer"]["state"]
    return found


@pytest.mark.deepspeed
def test_zero_in_bfloat16_keeps_its_float32_weights(tmp_path: Path) -> None:
    """The model's own are rounded after every step; without the others a resume would lose what
    steps smaller than the rounding have added up to."""
    pytest.importorskip("deepspeed")
    half = (*RUN, "model.dtype=bfloat16", "train.learning_rate=1e-5")
    assert (whole := launch("rlkit.run", *half, cwd=tmp_path, launcher=DEEPSPEED)).status == 0, (
        whole.err
    )
    expected = weights(tmp_path / "run", 5)
    forget(tmp_path / "run", 4, 5)
    resumed = launch("rlkit.run", *half, "resume=auto", cwd=tmp_path, launcher=DEEPSPEED)
    assert resumed.status == 0, resumed.err
    found = weights(tmp_path / "run", 5)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    refused = launch(
        "rlkit.run", *SMALL, "model.autocast=bfloat16", cwd=tmp_path, launcher=DEEPSPEED
    )
    (line,) = lines_of(refused)
    assert "model.autocast" in line and "ddp.yaml" in line


def test_zero_of_other_stages_is_refused(tmp_path: Path) -> None:
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    done = ranks("rlkit.run", *RUN, cwd=tmp_path, env=asked)
    (line,) = lines_of(done)
    assert "stage 3" in line and "fsdp2.yaml" in line


def test_the_launchers_mixed_precision_is_not_silently_ignored(tmp_path: Path) -> None:
    done = run(*SMALL, cwd=tmp_path, env={"ACCELERATE_MIXED_PRECISION": "bf16"})
    assert done.status == 2 and "model.autocast=bfloat16" in done.err


def test_what_divided_weights_cannot_do(tmp_path: Path) -> None:
    done = launch("tests.sharded_run", *SMALL, "algorithm=ppo", "output_dir=run", cwd=tmp_path)
    (line,) = lines_of(done)
    assert "critic" in line and "ddp.yaml" in line


ASYNC = (
    *(s for s in SMALL if not s.startswith("train.steps")),
    "train.steps=3",
    "algorithm=ppo",
    "rollout.mode=async",
    "rollout.max_staleness=1",
    "rollout.deterministic=true",
    "output_dir=run",
)


@pytest.mark.slow
def test_asynchronous_rollouts_and_a_critic_under_accelerate_launch(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    assert (alone := run(*ASYNC, cwd=one)).status == 0, alone.err
    done = launch("rlkit.run", *ASYNC, cwd=two, launcher=ACCELERATE)
    assert done.status == 0, done.err
    assert_alike(two / "run", one / "run", processes=2)


@pytest.mark.parametrize(
    "chosen",
    [
        ("rollout.oversample=1", "rollout.round_tokens=5", "rollout.sync_every=2"),
        ("+experiment=nested_reft_practical",),
        (
            *("algorithm=spec_rl", "rollout.draft_uniforms=stored"),
            *("buffer.cooldown=1", "buffer.low=0", "buffer.high=1"),
        ),
        ("algorithm=props",),
    ],
    ids=["partial", "layer_skip", "drafts", "props"],
)
def test_engines_that_are_not_the_policy_now(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """Responses that go on with later weights, of weights that lag, of a part of the layers, that
    begin with a draft, or of an adapter."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    chosen = (*SMALL, *chosen, "train.steps=3", "output_dir=run")
    assert (alone := run(*chosen, cwd=one)).status == 0, alone.err
    done = launch("rlkit.run", *chosen, cwd=two)
    assert done.status == 0, done.err
    assert_alike(two / "run", one / "run", processes=2)


# ---- errors


def lines_of(result: Result) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith("rlkit:")]


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    done = launch("rlkit.run", "train.stepz=3", cwd=tmp_path, launcher=TORCHRUN)
    (line,) = lines_of(done)
    assert "train.stepz" in line
    assert done.status != 0


def test_an_error_in_the_first_process_ends_all(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def bad(prompts, completions, **c):\n    1 / 0\n")
    done = launch("rlkit.run", *SMALL, "reward=[bad:bad]", cwd=tmp_path)
    (line,) = lines_of(done)
    assert "raised ZeroDivisionError" in line and "bad.py:2" in line
    assert done.status != 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model.device=cpu", "rollout=vllm"), "rollout=vllm_server"),
        (("rollout.max_prompt_length=1", "task.overlong=error", "task=jsonl"), "model.name"),
    ],
)
def test_what_several_processes_cannot_do(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = launch("rlkit.run", *arguments, cwd=tmp_path)
    (line,) = lines_of(done)
    assert words in line
