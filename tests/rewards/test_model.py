"""The reward `model`: its settings, its values, and runs that train on it and resume exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rlkit
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.registry import build
from rlkit.rewards.model import ModelReward
from rlkit.testing import check_reward
from tests.cli import SMALL, without_times
from tests.compositions import composed
from tests.reward_models import count_loads, save_reward_model


def opened(path: Any, **settings: Any) -> ModelReward:
    reward = build("reward", "model", path=path, device="cpu", **settings)
    reward.open(RunContext())
    return reward


def test_it_keeps_the_contract_of_rewards(tmp_path: Path) -> None:
    check_reward(build("reward", "model", path=save_reward_model(tmp_path), device="cpu"))


def test_values_are_centered_then_scaled(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path)
    prompts, completions = ["1+1="] * 3, ["2", "3", "22"]
    raw = opened(path)(prompts, completions)
    moved = opened(path, center=0.5, scale=2.0)(prompts, completions)
    assert moved == [2.0 * (value - 0.5) for value in raw if value is not None]
    assert len({*raw}) == 3
    with pytest.raises(UserError, match="scale"):
        build("reward", "model", path=path, scale=0)


def test_a_response_that_was_cut_off_gets_a_constant_if_asked(tmp_path: Path) -> None:
    """By default it is scored without an end of sequence."""
    path = save_reward_model(tmp_path)
    prompts, completions, reasons = ["1+1="] * 2, ["2", "2"], ["stop", "length"]
    ended, cut = opened(path)(prompts, completions, finish_reasons=reasons)
    assert ended is not None and ended != cut
    assert opened(path, unfinished=-1.0, scale=3.0, center=9.0)(
        prompts, completions, finish_reasons=reasons
    ) == [3.0 * (ended - 9.0), -1.0]
    assert opened(path, unfinished=-1.0)(["1"], ["2"], finish_reasons=["length"]) == [-1.0]
    assert opened(path)(prompts, completions) == [ended, ended]


def test_too_long_a_text_stops_the_run_or_loses_its_beginning(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path)
    with pytest.raises(UserError, match=r"have 6 tokens.*takes 4.*overlong=cut"):
        opened(path, max_length=4)(["1+1="], ["2"])
    assert opened(path, max_length=4, overlong="cut")(["1+1="], ["2"]) == opened(path)(
        ["1="], ["2"]
    )
    with pytest.raises(UserError, match="takes 64"):
        opened(path, max_length=100)(["1" * 80], ["2"])
    with pytest.raises(UserError, match="have no tokens"):
        opened(path, eos=False)([""], [""])


def test_a_list_scores_with_the_mean_of_the_weights(tmp_path: Path) -> None:
    paths = [save_reward_model(tmp_path / name, seed) for seed, name in enumerate("ab")]
    reward = opened(paths)
    model, _ = reward.scorer.load()  # type: ignore[union-attr]
    heads = [load_file(Path(p) / "model.safetensors")["score.weight"] for p in paths]
    torch.testing.assert_close(model.score.weight, (heads[0] + heads[1]) / 2)
    (note,) = reward.notes()
    assert (
        note == f"Reward model: the mean of the weights of {', '.join(paths)}, in float32 on cpu."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "./nowhere"}, "no such folder|no folder"),
        ({"path": "a/b", "device": "cuda:7"}, r"reward\.model\.device=cuda:7"),
    ],
)
def test_what_is_wrong_is_said_when_the_run_is_composed(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("reward", "model", **settings).open(RunContext())
    overrides = [f"reward.model.{key}={value}" for key, value in settings.items()]
    with pytest.raises(UserError, match=message):
        composed("reward=[model]", *overrides)


def test_without_a_path_it_is_composed_and_told_before_the_policy_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    composed("reward=[model]")
    monkeypatch.setattr("rlkit.composition.session.load_policy", None)
    with pytest.raises(UserError, match=r"reward=model needs reward\.model\.path"):
        rlkit.train(*SMALL, "algorithm=grpo", "reward=[model]", output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_must_be_opened() -> None:
    with pytest.raises(UserError, match="was not opened"):
        build("reward", "model", path="a/b")(["p"], ["c"])


def train(folder: Path, *overrides: str, **given: Any) -> rlkit.TrainedRun:
    steps = ("train.steps=4", "checkpoint.every=2", "checkpoint.keep=5", "train.learning_rate=1e-3")
    return rlkit.train(*SMALL, "algorithm=grpo", *steps, *overrides, output_dir=folder, **given)


@pytest.mark.slow
def test_a_run_trains_on_it_loads_it_once_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save_reward_model(tmp_path / name, seed) for seed, name in enumerate("ab")]
    loads = count_loads(monkeypatch)
    own = ("reward=[model,missing_eos]", f"reward.model.path=[{','.join(paths)}]")
    whole = train(tmp_path / "whole", *own)
    assert len(loads) == 1
    assert {"reward/model/mean", "reward/missing_eos/mean"} <= whole.metrics[1].keys()
    scored = opened(paths)
    for row in whole.completions(4)[:4]:
        cut_off = row["finish_reason"] == "length"
        (value,) = scored([row["prompt"]], [row["response"]], finish_reasons=[row["finish_reason"]])
        assert row["rewards"]["model"] == pytest.approx(value, abs=2e-6)
        assert row["reward"] == row["rewards"]["model"] - float(cut_off)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoint-4")
    part = train(tmp_path / "part", *own, "resume=auto")
    assert without_times(part.metrics) == without_times(whole.metrics)
    one, two = (load_file(run.checkpoint / "model.safetensors") for run in (whole, part))
    assert all(torch.equal(one[name], two[name]) for name in one)
