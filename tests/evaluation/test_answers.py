"""From requests to marked answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.batch import Request
from rlkit.evaluation.answers import answer, failures
from rlkit.interfaces import Reward
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.judges import Judges
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.tasks.prompts import Prompts
from tests.steps import ROWS


class Fixed(RolloutEngine):
    """Answers request i, response j with the digit i + j, of i + 1 tokens."""

    def start(self, policy: Policy, seed: int) -> None:
        raise AssertionError

    def sync(self, step: int) -> None:
        raise AssertionError

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        places = range(len(call.requests))[call.part]
        return [
            [self.made(place, place + j) for j in range(request.n)]
            for place, request in zip(places, call.own, strict=True)
        ]

    def made(self, place: int, digit: int) -> Generation:
        ids = self.tokenizer(str(digit) * (place + 1))["input_ids"]
        return Generation(
            response_ids=torch.tensor(ids),
            logp=torch.zeros(len(ids)),
            policy_version=torch.zeros(len(ids), dtype=torch.int32),
            finish_reason="length" if digit == 2 else "stop",
            extras={},
        )

    tokenizer: Any = None


def digit(completions: list[str], **columns: Any) -> list[float | None]:
    return [None if text[0] == "3" else int(text[0]) / 2 for text in completions]


def length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize("part", [slice(None), slice(1, 3)])
def test_each_problem_has_its_texts_lengths_rewards_and_marks(policy: Policy, part: slice) -> None:
    """The judge gives half the digit and nothing for a 3; full marks begin at 1."""
    prompts = Prompts("eval", ROWS, policy.tokenizer)
    engine = Fixed()
    engine.tokenizer = policy.tokenizer
    both: dict[str, Reward] = {n: reward_class(f)() for n, f in (("d", digit), ("l", length))}
    asked = [Request(prompt=p, n=2) for p in prompts[:3]]
    call = GenerationCall(asked, ("eval", 0, 0), part=part)
    found = answer(engine, RewardSet(both), policy.tokenizer, call, Judges("d")).each
    assert [a.prompt.prompt_id for a in found] == [p.prompt_id for p in prompts[:3]][part]
    texts = [["0", "1"], ["11", "22"], ["222", "333"]]
    assert [a.texts for a in found] == texts[part]
    assert [a.lengths for a in found] == [[len(t) for t in row] for row in texts][part]
    assert [a.components["d"] for a in found] == [[0.0, 0.5], [0.5, 1.0], [1.0, None]][part]
    assert [a.totals for a in found] == [[1.0, 1.5], [2.5, 3.0], [4.0, 3.0]][part]
    assert [a.right for a in found] == [[False, False], [False, True], [True, False]][part]
    reasons = [["stop", "stop"], ["stop", "length"], ["length", "stop"]]
    assert [a.finish_reasons for a in found] == reasons[part]


def test_rewards_that_failed_are_told_with_what_happened() -> None:
    assert failures({}, 8) is None and failures({"lost": 0}, 8) is None
    assert failures({"cached": 3}, 8) is None, "an own reward counts what it likes"
    told = failures({"timeouts": 2, "errors": 0, "lost": 1}, 8)
    assert told and told.startswith("rewards failed over some of 8 responses (2 timeouts, 1 lost);")
