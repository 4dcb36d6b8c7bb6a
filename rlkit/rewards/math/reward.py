"""Mathematical equality with the answer, judged in processes that can be killed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.inputs import answer_texts, completion_text
from rlkit.rewards.math.extract import spoken
from rlkit.rewards.math.grouping import classes
from rlkit.rewards.math.worker import RAISED
from rlkit.rewards.pool import Verdict, WorkerPool, usual_size

log = logging.getLogger(__name__)


class MathConfig(RewardConfig):
    """Settings of `math`."""

    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Wall-clock seconds to judge one completion. One that takes longer gets 0 and is counted in
    reward/timeouts."""
    memory_mb: Annotated[int, Field(ge=256)] | None = 2048
    """Address space of a worker in MiB. A completion that needs more gets 0 and is counted in
    reward/timeouts. null = no limit (macOS does not enforce one)."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Worker processes; null = one per processor, at most two."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Relative error that a real number may have. 0 = none: 0.3333333 is not 1/3."""
    max_chars: Annotated[int, Field(ge=1)] = 10_000
    """Only this many characters at the end of a completion are judged: the answer is there."""


@register("reward", "math")
class Math(Reward[MathConfig]):
    r"""1 if the completion's answer equals the `answer` column mathematically, else 0.

    The answer is the last \boxed{}, or else what a sentence such as "The answer is 3." states; the
    thinking part and copies of the prompt are ignored. docs/math_reward.md says what equals what.
    None for a row without an `answer`, and if no worker could judge: it could not read the gold, or
    was lost twice. Status: our choice.
    """

    marks_correctness = True
    beside_others = True
    caches = ("_counts", "_pool")

    def __init__(self, config: MathConfig | None = None) -> None:
        super().__init__(config)
        self._counts: Counter[str] = Counter()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score per completion. Workers start at the first call."""
        c = self.config
        golds = answer_texts(columns, "math")
        texts = [
            spoken(completion_text(completion), _prompt_text(prompt))[-c.max_chars :]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        limits = {"tolerance": c.tolerance, "alarm": 2 * c.timeout + 1}
        items = {
            i: {"gold": gold, "text": text, **limits}
            for i, (gold, text) in enumerate(zip(golds, texts, strict=True))
            if gold is not None
        }
        judged = self._pool.judge(list(items.values()), c.timeout)
        self._count(judged)
        verdicts = dict(zip(items, judged, strict=True))
        return [verdicts[i].mark if i in verdicts else None for i in range(len(texts))]

    def classes(self, groups: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
        """For each group of answers to one problem the class of each answer, from 0; None has none.

        Equal answers share a class; two that could not be compared within the limits do not.
        `rlkit.rewards.math.grouping.final_answer` cuts the answer out of a completion.
        """
        return classes(groups, self._same)

    def counts(self) -> dict[str, int]:
        """The "timeouts", "errors" and "lost" completions since the last call.

        "errors" are completions over which the checker raised: 0 when their text caused it.
        """
        counts, self._counts = dict(self._counts), Counter()
        return counts

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    @cached_property
    def _pool(self) -> WorkerPool:
        size = self.config.workers or usual_size()
        memory = str(self.config.memory_mb or 0)
        return WorkerPool("rlkit.rewards.math.worker", [memory], size)

    def _same(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        c = self.config
        limits = {"tolerance": c.tolerance, "alarm": 2 * c.timeout + 1}
        items = [{"answers": [a[-c.max_chars :] for a in pair], **limits} for pair in pairs]
        judged = self._pool.judge(items, c.timeout)
        return [verdict.score == 1.0 for verdict in judged]

    def _count(self, verdicts: Sequence[Verdict]) -> None:
        self._counts.update(event for v in verdicts if (event := _event(v)) is not None)
        errors = [v.detail for v in verdicts if v.kind == "error"]
        if errors:
            log.warning(
                "reward 'math' left out %d of %d completions that could not be judged; first: %s",
                len(errors),
                len(verdicts),
                errors[0],
            )


def _prompt_text(prompt: Any) -> str:
    """The text of a prompt: itself, or the content of the last message of a chat, if any."""
    return completion_text(prompt) if prompt else ""


def _event(verdict: Verdict) -> str | None:
    """What a verdict is counted as; None with a score."""
    raised = verdict.kind == "limit" and verdict.detail.startswith(RAISED)
    return "errors" if raised else verdict.event
