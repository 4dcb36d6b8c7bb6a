"""Evaluation on held-out problems: sampled pass@k and greedy accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from typing import Any

from rlkit.batch import Prompt, Request
from rlkit.config.run import EvalConfig
from rlkit.evaluation.answers import Answered, answer
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import GenerationCall, RolloutEngine
from rlkit.tasks.identity import data_source


def silent(task: str, done: int, of: int) -> None:
    """Tell nobody how far an evaluation is."""


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

    def run(
        self, step: int, progress: Callable[[str, int, int], None] = silent
    ) -> dict[str, float]:
        """eval/pass@1, eval/pass@<k> if k > 1, and eval/greedy.

        `progress` is told the task, how many problems are answered, and of how many.
        With a column `data_source`, also eval/source/<name>/pass@1 for each of its names.
        """
        n, k = self.config.samples, self.config.k
        several = [Request(prompt=p, n=n) for p in self.prompts]
        once = [Request(prompt=p, n=1) for p in self.prompts]
        progress("evaluating", 0, len(several))
        sampled = self._answers(
            GenerationCall(
                several, ("eval", step, 0), tell=lambda n: progress("evaluating", n, len(several))
            )
        )
        greedy = self._answers(
            GenerationCall(
                once,
                ("eval-greedy", step, 0),
                greedy=True,
                tell=lambda n: progress("evaluating greedily", n, len(once)),
            )
        )
        right = [sum(each.right) for each in sampled]
        metrics = {"eval/pass@1": sum(right) / (n * len(right))}
        if k > 1:
            metrics[f"eval/pass@{k}"] = sum(pass_at_k(n, c, k) for c in right) / len(right)
        metrics["eval/greedy"] = sum(each.right[0] for each in greedy) / len(right)
        return metrics | self._by_source([c / n for c in right])

    def _by_source(self, shares: Sequence[float]) -> dict[str, float]:
        """pass@1 of each source, from the share of right responses to each problem."""
        found: dict[str, list[float]] = {}
        for prompt, share in zip(self.prompts, shares, strict=True):
            if (source := data_source(prompt)) is not None:
                found.setdefault(source, []).append(share)
        return {f"eval/source/{name}/pass@1": sum(v) / len(v) for name, v in found.items()}

    def _answers(self, call: GenerationCall) -> list[Answered]:
        return answer(self.engine, self.rewards, self.tokenizer, call, self.judge)
