"""Evaluation on held-out problems: sampled pass@k and greedy accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

from rlkit.batch import Prompt, Request
from rlkit.config.run import EvalConfig
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.training.collect import score
from rlkit.training.metrics import data_source

FULL_MARKS = 1.0 - 1e-6


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimator of the probability that at least one of k samples is right.

    It is 1 - C(n - c, k) / C(n, k) for c right samples among n (arXiv:2107.03374).
    """
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


class Evaluator:
    """Answers a fixed set of held-out problems.

    A response is right if the reward `judge` gives it 1 or more; by default the first one.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        rewards: RewardSet,
        engine: RolloutEngine[Any],
        tokenizer: Any,
        config: EvalConfig,
        judge: str | None = None,
    ) -> None:
        self.prompts = prompts[: config.problems]
        self.rewards = rewards
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.judge = judge or next(iter(rewards.rewards))

    def run(self, step: int) -> dict[str, float]:
        """eval/pass@1, eval/pass@<k> if k > 1, and eval/greedy.

        With a column `data_source`, also eval/source/<name>/pass@1 for each of its names.
        """
        n, k = self.config.samples, self.config.k
        several = [Request(prompt=p, n=n) for p in self.prompts]
        once = [Request(prompt=p, n=1) for p in self.prompts]
        sampled = self.engine.generate(GenerationCall(several, ("eval", step, 0)))
        call = GenerationCall(once, ("eval-greedy", step, 0), greedy=True)
        greedy = self.engine.generate(call)
        right = [sum(marks) for marks in self._marks(sampled)]
        metrics = {"eval/pass@1": sum(right) / (n * len(right))}
        if k > 1:
            metrics[f"eval/pass@{k}"] = sum(pass_at_k(n, c, k) for c in right) / len(right)
        metrics["eval/greedy"] = sum(marks[0] for marks in self._marks(greedy)) / len(right)
        return metrics | self._by_source([c / n for c in right])

    def _by_source(self, shares: Sequence[float]) -> dict[str, float]:
        """pass@1 of each source, from the share of right responses to each problem."""
        found: dict[str, list[float]] = {}
        for prompt, share in zip(self.prompts, shares, strict=True):
            if (source := data_source(prompt)) is not None:
                found.setdefault(source, []).append(share)
        return {f"eval/source/{name}/pass@1": sum(v) / len(v) for name, v in found.items()}

    def _marks(self, answers: Sequence[Sequence[Generation]]) -> list[list[bool]]:
        prompts = [p for p, group in zip(self.prompts, answers, strict=True) for _ in group]
        result = score(
            self.rewards, prompts, [g for group in answers for g in group], self.tokenizer
        )
        flat = iter(result.components[self.judge])
        return [
            [(value := next(flat)) is not None and value >= FULL_MARKS for _ in group]
            for group in answers
        ]
