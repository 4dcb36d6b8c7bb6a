"""The recipe of docs/rewards.md: a run's pairs, a reward model by TRL, a run that trains on it."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset
from safetensors.torch import load_file

import rlkit
from rlkit.interfaces import RunContext
from rlkit.models.embedded import embedded_model_dir
from tests.cli import ROOT, SMALL, command, without_times

pytestmark = pytest.mark.slow
RECIPE = SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "reward_model.py")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stored responses of the base, a reward model trained on them, and answers."""
    place = tmp_path_factory.mktemp("recipe")
    rlkit.train(
        *(*SMALL, "algorithm=grpo", "train.steps=1", "train.prompts_per_step=64"),
        *("rollout.save=true", "rollout.temperature=1.5"),
        output_dir=place / "source",
    )
    rows = load_dataset("parquet", data_dir=str(place / "source/rollouts/data"), split="train")
    found = list(RECIPE.pairs(rows.to_list()))
    data = Dataset.from_list([*found, *RECIPE.altered(found, 1, 0)])
    RECIPE.train(
        data, str(embedded_model_dir()), place / "reward_model", seed=0, epochs=4, rate=2e-3
    )
    done = command(
        "rlkit.__main__", "eval", "embedded", "--out", "base", "eval.problems=8", cwd=place
    )
    assert done.status == 0, done.err
    return place


def asynchronous(place: Path, name: str, *overrides: str) -> rlkit.TrainedRun:
    return rlkit.train(
        *(*SMALL, "+experiment=async_rlhf", "train.steps=4", "checkpoint.every=2"),
        f"reward.model.path={place / 'reward_model'}",
        f"eval.against.responses={place / 'base/answers.parquet'}",
        *overrides,
        output_dir=place / name,
    )


def test_the_reward_model_prefers_right_responses(made: Path) -> None:
    reward = rlkit.build("reward", "model", path=str(made / "reward_model"), device="cpu")
    reward.open(RunContext())
    task = rlkit.build("task", "arithmetic")
    rows = [task.load(0).eval[i] for i in range(64)]
    prompts = [row["prompt"] for row in rows]
    right = reward(prompts, [row["solution"] for row in rows])
    forgotten = [f"{row['solution'][:-2]}{int(row['answer']) - 10:02d}" for row in rows]
    wrong = reward(prompts, forgotten)
    better = sum(r > w for r, w in zip(right, wrong, strict=True))
    assert better >= 48


def test_asynchronous_rlhf_trains_on_it_against_gold_and_resumes_exactly(made: Path) -> None:
    whole = asynchronous(made, "whole")
    evaluations = [row for row in whole.metrics if "eval/win_rate" in row]
    assert [row["step"] for row in evaluations] == [0, 4]
    assert evaluations[0]["eval/win_rate"] == 0.5, "the base against its own answers"
    trained: dict[str, Any] = whole.metrics[1]
    assert "reward/model/mean" in trained and "reward/exact/mean" not in trained
    assert trained["reward/mean"] == pytest.approx(trained["reward/model/mean"])
    assert "eval/reward/exact/mean" in evaluations[0]
    shutil.copytree(made / "whole", made / "part")
    shutil.rmtree(made / "part" / "checkpoint-4")
    part = asynchronous(made, "part", "resume=auto")
    assert without_times(part.metrics) == without_times(whole.metrics)
    one, two = (load_file(run.checkpoint / "model.safetensors") for run in (whole, part))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_chosen_text_is_set_against_copies_with_another_number_at_the_end() -> None:
    row = {"prompt": "1+1=", "chosen": "x#12", "rejected": "x#02"}
    found = list(RECIPE.altered([row, row, {**row, "chosen": "none"}], 3, 0))
    assert len({each["rejected"] for each in found}) == len(found) == 3
    for each in found:
        assert each["chosen"] == "x#12" and int(each["rejected"][2:]) - 12 in RECIPE.STEPS
    assert found == list(RECIPE.altered([row], 3, 0)) != list(RECIPE.altered([row], 3, 1))


def test_pairs_set_the_best_of_a_group_against_each_worse_response() -> None:
    def row(group: int, response: str, reward: float, **more: Any) -> dict[str, Any]:
        return {
            "step": 1,
            "group": group,
            "prompt": "p",
            "response": response,
            "reward": reward,
        } | more

    rows = [
        row(0, "a", 1.0),
        row(0, "b", 0.0),
        row(0, "b", 0.0),
        row(0, "c", 0.5),
        row(1, "a", 1.0),
    ]
    assert list(RECIPE.pairs(rows)) == [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "c"},
    ]
    chat = [{"role": "user", "content": "p"}]
    (pair,) = RECIPE.pairs([row(0, t, r, messages=chat) for t, r in (("a", 1.0), ("b", 0.0))])
    assert pair["prompt"] == chat and pair["rejected"] == [{"role": "assistant", "content": "b"}]
