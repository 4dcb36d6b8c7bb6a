"""The environment's own reward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlkit
from rlkit.batch import Prompt
from rlkit.errors import UserError
from rlkit.evaluation.answers import score
from rlkit.rewards.function import looks_at, reward_class
from rlkit.rewards.scoring import RewardSet
from tests.rollout.test_played import generation, played
from tests.tiny import make_tokenizer


def prompt(**columns: object) -> Prompt:
    ids = torch.tensor([2])
    return Prompt(prompt_id="p", text_or_messages="1", ids=ids, columns=columns)


def test_it_is_a_part_of_the_total_with_its_weight() -> None:
    seen: dict[str, Any] = {}

    def listening(prompts: Any, completions: Any, environments: Any, **columns: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, environments=environments)
        return [1.0] * len(prompts)

    rewards = RewardSet(
        {
            "environment": rlkit.build("reward", "environment", weight=0.5),
            "listening": reward_class(listening)(),
        }
    )
    longer = [{"role": "user", "content": "more"}]
    made = [
        generation(played(reward=0.5, asked=longer, handle="h")),
        generation(played(reward=None)),
        generation(None),
    ]
    found = score(rewards, [prompt()] * 3, made, make_tokenizer())
    assert found.components["environment"] == [0.5, None, None]
    assert found.total == [1.25, 1.0, 1.0]
    assert seen["prompts"] == [longer, "1+1=", "1"]
    assert seen["completions"] == [[{"role": "assistant", "content": "2"}]] * 2 + ["234"]
    assert seen["environments"] == ["h", None, None]
    assert looks_at(rewards.rewards["listening"], "environments")
    assert not looks_at(rewards.rewards["environment"], "environments")


def test_a_column_of_its_name_is_refused() -> None:
    rewards = RewardSet({"environment": rlkit.build("reward", "environment")})
    with pytest.raises(UserError, match="a column called 'environments'"):
        score(rewards, [prompt(environments=1)], [generation(played())], make_tokenizer())


def test_without_an_environment_it_does_not_apply() -> None:
    assert rlkit.build("reward", "environment")(["a"], ["b"]) == [None]
