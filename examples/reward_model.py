"""Train a reward model with TRL on preferences made from a run's stored responses.

    rlkit train algorithm=grpo rollout.save=true rollout.temperature=1.5 train.steps=1 \
        train.prompts_per_step=512 output_dir=runs/source
    python examples/reward_model.py runs/source runs/reward_model
    rlkit train reward=[model] reward.model.path=runs/reward_model

The best response to a prompt is chosen, each that got less is rejected. The reward that labels
them plays the part of the human, or of the gold reward model of arXiv:2410.18252. A policy soon
finds responses that no pair spoke of, so more are rejected: copies of the chosen one with another
number at their end (--altered). The model starts from the policy that wrote them, with a new head,
and learns

    L = -log sigmoid(s(x, chosen) - s(x, rejected)) + 0.01 (s(x, chosen) + s(x, rejected))^2,

Bradley and Terry's model of preferences; the second term keeps the scores around 0.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rlkit.models.embedded import embedded_model_dir

Row = dict[str, Any]
STEPS = (-11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20)
"""How far a wrong number is from the right one."""


def pairs(rows: Sequence[Row]) -> Iterator[Row]:
    """A preference for each group of stored responses whose rewards differ, in TRL's format."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["step"], row["group"]), []).append(row)
    for group in groups.values():
        best = max(group, key=lambda row: row["reward"])
        worse = {row["response"] for row in group if row["reward"] < best["reward"]}
        for response in sorted(worse):
            yield preference(best, response)


def altered(rows: Sequence[Row], copies: int, seed: int) -> Iterator[Row]:
    """Each different chosen text again, against copies whose last two digits are another number."""
    for row in {(row["prompt"], row["chosen"]): row for row in rows}.values():
        head, digits = row["chosen"][:-2], row["chosen"][-2:]
        if not digits.isdecimal():
            continue
        rng = random.Random(f"{seed} {row['prompt']} {row['chosen']}")
        for step in rng.sample(STEPS, copies):
            other = f"{max(0, int(digits) + step):02d}"[-2:]
            yield {**row, "rejected": head + other}


def preference(chosen: Row, rejected: str) -> Row:
    """A row of texts, or of messages if the prompt is a chat."""
    if chosen.get("messages"):
        answers = [[{"role": "assistant", "content": t}] for t in (chosen["response"], rejected)]
        return {"prompt": chosen["messages"], "chosen": answers[0], "rejected": answers[1]}
    return {"prompt": chosen["prompt"], "chosen": chosen["response"], "rejected": rejected}


def train(data: Dataset, model: str, out: Path, *, seed: int, epochs: float, rate: float) -> None:
    """Train a model with a single label and save it with its tokenizer."""
    on_gpu = torch.cuda.is_available()
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(out),
            seed=seed,
            num_train_epochs=epochs,
            learning_rate=rate,
            per_device_train_batch_size=64,
            center_rewards_coefficient=0.01,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=on_gpu,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data,
    )
    trainer.train()
    trainer.save_model(str(out))


def main() -> None:
    """Read a run's rollouts, and write the folder of a reward model."""
    ask = argparse.ArgumentParser(description="Train a reward model on a run's stored responses.")
    ask.add_argument("run", type=Path, help="a run folder with rollouts (rollout.save=true)")
    ask.add_argument("out", type=Path, help="the folder of the reward model")
    ask.add_argument("--model", default="embedded", help="what it starts from: the run's own model")
    ask.add_argument("--seed", type=int, default=0, help="another seed, another model to average")
    ask.add_argument("--epochs", type=float, default=8)
    ask.add_argument("--learning-rate", type=float, default=2e-3, help="1e-5 for real models")
    ask.add_argument("--altered", type=int, default=3, help="0 where responses end in no number")
    given = ask.parse_args()
    rows = load_dataset("parquet", data_dir=str(given.run / "rollouts/data"), split="train")
    found = list(pairs(rows.to_list()))
    data = Dataset.from_list([*found, *altered(found, given.altered, given.seed)])
    print(f"{len(data)} pairs from {len(rows)} responses")
    model = str(embedded_model_dir()) if given.model == "embedded" else given.model
    train(data, model, given.out, seed=given.seed, epochs=given.epochs, rate=given.learning_rate)


if __name__ == "__main__":
    main()
