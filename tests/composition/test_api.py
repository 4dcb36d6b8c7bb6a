"""`rlkit.train`: the command line's run from Python, with objects in memory, and nothing left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pytest
import torch
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers.utils import logging as transformers

import rlkit
from tests.cli import ROOT, SMALL, metrics, run, without_times
from tests.tiny import make_policy

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(10) for b in range(4)]


@pytest.mark.slow
def test_one_training_after_the_other_in_a_fresh_process() -> None:
    """What the first one puts into Hydra's store is taken out again, and put there anew."""
    code = "import rlkit\nfor _ in range(3): rlkit.train('dry_run=true')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def has_one(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    return [float("1" in c) for c in completions]


async def has_two(completions: Sequence[str], answer: Sequence[str]) -> list[float]:
    await asyncio.sleep(0)
    return [float("2" in c) for c in completions]


def objects() -> dict[str, Any]:
    policy = make_policy()
    return {"model": policy.model, "tokenizer": policy.tokenizer, "dataset": list(ROWS)}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def test_names_train_what_the_command_line_trains(tmp_path: Path) -> None:
    made = rlkit.train(*SMALL, "algorithm=remix", output_dir=tmp_path / "api")
    told = run(*SMALL, "algorithm=remix", "output_dir=cli", cwd=tmp_path)
    assert told.status == 0, told.err
    assert without_times(made.metrics) == without_times(metrics(tmp_path / "cli"))
    one, other = weights(made.checkpoint), weights(tmp_path / "cli" / "checkpoint-2")
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert made.finished and made.checkpoint.name == "checkpoint-2"
    assert len(made.completions(2)) == 32
    file = made.path / "completions" / "step-2.jsonl"
    file.write_text('{"response": "a\u2028b\u0085c"}\n', encoding="utf-8")
    assert made.completions(2) == [{"response": "a\u2028b\u0085c"}]
    with pytest.raises(rlkit.UserError, match="has no completions of step 7"):
        made.completions(7)


def test_objects_in_memory_are_trained_and_named_by_class_and_hash(tmp_path: Path) -> None:
    given = objects()
    before = given["model"].lm_head.weight.detach().clone()
    given["dataset"] = datasets.Dataset.from_list(ROWS)
    made = rlkit.train(
        *(*SMALL, "algorithm=grpo", "train.learning_rate=1e-3"),
        **given,
        reward=[has_one, has_two],
        output_dir=tmp_path,
    )
    trained = given["model"].lm_head.weight
    assert not torch.equal(trained, before), "trained in place"
    torch.testing.assert_close(weights(made.checkpoint)["lm_head.weight"], trained)
    assert {"reward/has_one/mean", "reward/has_two/mean"} <= made.metrics[1].keys()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["name"].startswith("object LlamaForCausalLM sha256:")
    assert config["task"]["path"].startswith("object Dataset sha256:")
    assert config["reward"]["has_one"]["source"].startswith("object function sha256:")
    found = made.evaluate("eval.problems=4")
    assert {"eval/pass@1", "eval/greedy", "eval/reward/has_two/mean"} <= found.keys()
    assert made.metrics.to_pandas().shape[0] == len(made.metrics)


@pytest.mark.slow
def test_a_resume_needs_the_objects_again_and_says_so(tmp_path: Path) -> None:
    arguments = (*SMALL, "algorithm=grpo", "rollout.max_completion_length=6")
    longer = (*arguments, "train.steps=4")
    whole = rlkit.train(*longer, **objects(), reward=has_one, output_dir=tmp_path / "whole")
    half = tmp_path / "half"
    rlkit.train(*arguments, **objects(), reward=has_one, output_dir=half)
    with pytest.raises(rlkit.UserError, match=r"object LlamaForCausalLM.*again to rlkit.train"):
        rlkit.train(*longer, output_dir=half, resume="auto")
    given = objects()
    resumed = rlkit.train(*longer, **given, reward=has_one, output_dir=half, resume="auto")
    one, other = weights(resumed.checkpoint), weights(whole.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert torch.equal(given["model"].lm_head.weight, other["lm_head.weight"])


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("train.stepz=3",), {}, "unknown key train.stepz. Did you mean 'train.steps'?"),
        (("algorithm=remx",), {}, "no algorithm called 'remx'. Did you mean 'remix'?"),
        (("train.steps=-1",), {}, "train.steps=-1 is not valid"),
        ((), {"model": make_policy().model}, "pass its tokenizer too"),
        ((), {"dataset": 3}, "dataset must be a datasets.Dataset, a list of dicts"),
        ((), {"dataset": []}, "dataset is empty"),
        ((), {"eval_dataset": ROWS}, "eval_dataset= goes with dataset="),
        ((), {"tokenizer": 3}, "tokenizer= goes with a model object"),
        ((), {"peft_config": 3}, "must be a peft.LoraConfig"),
        ((), {"reward": "exat"}, "Did you mean 'exact'?"),
    ],
)
def test_a_mistake_is_the_same_line_as_a_user_error(
    arguments: tuple[str, ...], given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(rlkit.UserError) as caught:
        rlkit.train(*arguments, **given, output_dir=tmp_path / "out")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def state() -> dict[str, Any]:
    return {
        "hydra": GlobalHydra.instance().hydra,
        "store": ConfigStore.instance().repo,
        "resolver": OmegaConf.has_resolver("run_label"),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "bars": transformers.is_progress_bar_enabled(),
        "threads": torch.get_num_threads(),
        "python": random.getstate(),
        "numpy": cast("Any", np.random.get_state(legacy=True))[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "rewards": rlkit.names("reward"),
        "tasks": rlkit.names("task"),
    }


def test_nothing_global_is_left_behind_and_a_second_run_is_the_first(tmp_path: Path) -> None:
    transformers.enable_progress_bar()
    before = state()
    exactly = ("model.deterministic=true", "model.tf32=true")
    arguments = (*SMALL, "algorithm=remix", *exactly)
    one, two = (
        rlkit.train(*arguments, **objects(), reward=has_one, output_dir=tmp_path / name)
        for name in ("one", "two")
    )
    assert state() == before
    assert without_times(one.metrics) == without_times(two.metrics)


def test_what_a_user_draws_follows_the_seed_and_not_the_process(tmp_path: Path) -> None:
    drawn: list[tuple[float, float, float]] = []

    def by_lot(completions: Sequence[str], **_: Any) -> list[float]:
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        return [float("1" in c) for c in completions]

    short = (*SMALL, "algorithm=grpo", "train.steps=1")
    for name in ("one", "two"):
        rlkit.train(*short, **objects(), reward=by_lot, output_dir=tmp_path / name)
        random.random(), np.random.rand(), torch.rand(())
    half = len(drawn) // 2
    assert drawn[:half] == drawn[half:] and drawn


def test_a_lora_config_of_peft_trains_adapters(tmp_path: Path) -> None:
    from peft import LoraConfig

    made = rlkit.train(
        *(*SMALL, "algorithm=grpo"),
        **objects(),
        reward=has_one,
        peft_config=LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
        output_dir=tmp_path,
    )
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["lora"]
    assert (config["r"], config["alpha"], config["target_modules"]) == (2, 8, ["q_proj", "v_proj"])
    assert (made.checkpoint / "adapter_model.safetensors").is_file()


def test_it_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    """As in a notebook, whose thread has one."""

    async def cell() -> rlkit.TrainedRun:
        arguments = (*SMALL, "algorithm=grpo")
        return rlkit.train(*arguments, **objects(), reward=has_two, output_dir=tmp_path)

    assert asyncio.run(cell()).finished


SHELL = """
import rlkit

def my_reward(prompts, completions, **columns):
    return [float("1" in c) for c in completions]

run = rlkit.train(*{small!r}, "algorithm=grpo", reward=my_reward, output_dir="out")
assert run.finished and "reward/my_reward/mean" in run.metrics[1]
try:
    rlkit.train("algorithm=remx")
except rlkit.UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_function_typed_into_a_shell_is_a_reward(tmp_path: Path) -> None:
    """Its module has no file, so its source is hashed by what it is called."""
    done = subprocess.run(
        [sys.executable, "-"],
        input=SHELL.format(small=SMALL),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].startswith("there is no algorithm called 'remx'.")
