"""Mathematical equality with the answer, judged by math-verify in processes that can be killed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.inputs import answer_texts, completion_text
from rlkit.rewards.pool import Verdict, WorkerPool

log = logging.getLogger(__name__)

COUNTED = {"limit": "timeouts", "error": "errors", "lost": "lost"}


class MathConfig(RewardConfig):
    """Settings of `math`."""

    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Wall-clock seconds to judge one completion. One that takes longer gets 0 and is counted in
    reward/timeouts."""
    memory_mb: Annotated[int, Field(ge=256)] | None = 2048
    """Address space of a worker in MiB. A completion that needs more gets 0 and is counted in
    reward/timeouts. null = no limit (macOS does not enforce one)."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Worker processes; null = one a processor, at most two."""
    max_chars: Annotated[int, Field(ge=1)] = 10_000
    """Only so many characters at the end of a completion are judged: the answer stands there."""


@register("reward", "math")
class Math(Reward[MathConfig]):
    r"""1 where the completion's answer equals the `answer` column mathematically, else 0.

    The answer is the last \boxed{} (neighbouring boxes are one set), or else what math-verify finds
    in the text. None in a row without an `answer`, and where no worker could judge: it raised or
    was lost twice.
    """

    Config = MathConfig

    def __init__(self, config: MathConfig | None = None) -> None:
        super().__init__(config)
        self._counts: Counter[str] = Counter()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One mark a completion. Workers start at the first call."""
        c = self.config
        golds = answer_texts(columns, "math")
        texts = [completion_text(completion)[-c.max_chars :] for completion in completions]
        items = {
            i: {"gold": gold, "text": text, "alarm": 2 * c.timeout + 1}
            for i, (gold, text) in enumerate(zip(golds, texts, strict=True))
            if gold is not None
        }
        judged = self._pool.judge(list(items.values()), c.timeout)
        self._count(judged)
        verdicts = dict(zip(items, judged, strict=True))
        return [_mark(verdicts[i]) if i in verdicts else None for i in range(len(texts))]

    def counts(self) -> dict[str, int]:
        """The "timeouts", "errors" and "lost" completions since the last call."""
        counts, self._counts = dict(self._counts), Counter()
        return counts

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    @cached_property
    def _pool(self) -> WorkerPool:
        size = self.config.workers or min(2, os.cpu_count() or 1)
        memory = str(self.config.memory_mb or 0)
        return WorkerPool("rlkit.rewards.math_worker", [memory], size)

    def _count(self, verdicts: Sequence[Verdict]) -> None:
        self._counts.update(COUNTED[v.kind] for v in verdicts if v.kind != "score")
        errors = [v.detail for v in verdicts if v.kind == "error"]
        if errors:
            log.warning(
                "reward 'math' left out %d of %d completions that could not be judged; first: %s",
                len(errors),
                len(verdicts),
                errors[0],
            )


def _mark(verdict: Verdict) -> float | None:
    return 0.0 if verdict.kind == "limit" else verdict.score
