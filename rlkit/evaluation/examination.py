"""Answering a set of problems chunk by chunk, and what the saved samples say of each problem."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rlkit.batch import Prompt, Request
from rlkit.config.sampling import Sampling
from rlkit.evaluation.answers import Answered, Answers, answer
from rlkit.evaluation.figures import Outcome
from rlkit.evaluation.problems import ProblemSet
from rlkit.evaluation.reflection import reflects
from rlkit.evaluation.store import Sample, Store
from rlkit.interfaces import Reward
from rlkit.rewards.inputs import completion_text
from rlkit.rewards.judges import Judges
from rlkit.rewards.math.grouping import final_answer
from rlkit.rewards.math.reward import Math
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import GenerationCall, RolloutEngine
from rlkit.tasks.prompts import Prompts

TRUNCATED = "length"
"""The finish reason of a response that was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the problems of a set are sampled."""

    samples: int
    """Sampled responses per problem; 0 = none."""
    greedy: bool
    """Whether there is a greedy response too."""
    sampling: Sampling
    responses: int
    """Responses that are generated and saved at once, about."""

    @property
    def chunk(self) -> int:
        """Problems answered and saved at once."""
        return max(1, self.responses // max(1, self.samples))

    def slices(self, problems: int) -> list[slice]:
        """The chunks of that many problems."""
        return [slice(i, min(i + self.chunk, problems)) for i in range(0, problems, self.chunk)]


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """A model's engine, and the rewards that mark its answers to one set of problems."""

    engine: RolloutEngine[Any]
    tokenizer: Any
    rewards: RewardSet
    judge: str
    tell: Callable[[str, int, int], None] = field(default=lambda task, done, of: None)
    """Told how many problems of a set are answered, and of how many."""

    @property
    def compares(self) -> bool:
        """Whether the answers can be compared."""
        return can_compare(self.rewards.rewards[self.judge])

    def complete(
        self, problems: ProblemSet, prompts: Prompts, protocol: Protocol, store: Store
    ) -> int:
        """Answer what the store lacks; returns the number of chunks there are now.

        The draws of a chunk depend on the engine's seed, the set's name and the chunk's number.
        """
        slices, total = protocol.slices(len(prompts)), len(prompts)
        for number, part in enumerate(slices):
            if store.has(problems.name, number):
                continue
            self.tell(problems.name, part.start, total)
            chunk: Sequence[Prompt] = prompts[part]

            def tell(done: int, start: int = part.start) -> None:
                self.tell(problems.name, start + done, total)

            rows: list[Sample] = []
            counts: Counter[str] = Counter()
            for greedy, count in ((False, protocol.samples), (True, int(protocol.greedy))):
                if count:
                    stream = f"eval{'-greedy' if greedy else ''}/{problems.name}"
                    call = GenerationCall(
                        [Request(prompt=prompt, n=count) for prompt in chunk],
                        (stream, number, 0),
                        greedy=greedy,
                        tell=tell,
                        sampling=protocol.sampling,
                    )
                    found = self._answers(call)
                    counts.update(found.counts)
                    rows += self._rows(call, found.each, problems, part.start)
            store.write(problems.name, number, rows, counts)
        self.tell(problems.name, total, total)
        return len(slices)

    def _answers(self, call: GenerationCall) -> Answers:
        return answer(self.engine, self.rewards, self.tokenizer, call, Judges(self.judge))

    def _rows(
        self,
        call: GenerationCall,
        answered: Sequence[Answered],
        problems: ProblemSet,
        start: int,
    ) -> Iterator[Sample]:
        """The rows of the responses to a call's requests; the first problem has this number."""
        given = [self._given(each) for each in answered]
        reward = self.rewards.rewards[self.judge]
        classes: Sequence[Sequence[int | None]] = (
            reward.classes(given) if isinstance(reward, Math) else given  # type: ignore[assignment]
        )
        for place, (each, texts, numbers) in enumerate(zip(answered, given, classes, strict=True)):
            row = problems.rows[start + place]
            same = {
                "problem": start + place,
                "prompt_id": each.prompt.prompt_id,
                "id": None if row.get("id") is None else str(row["id"]),
                "prompt": as_text(row["prompt"]),
                "answer": str(row.get("answer", "")),
                "greedy": call.greedy,
            }
            for sample, response in enumerate(each.texts):
                yield same | {
                    "sample": sample,
                    "response": response,
                    "given": texts[sample],
                    "class": numbers[sample],
                    "right": each.right[sample],
                    "reward": each.totals[sample],
                    "tokens": each.lengths[sample],
                    "finish_reason": each.finish_reasons[sample],
                    "reflects": reflects(response),
                }

    def _given(self, answered: Answered) -> list[str | None]:
        """The answer in each response; None for all if answers are not compared."""
        if not self.compares:
            return [None] * len(answered.texts)
        asked = answered.prompt.text_or_messages
        return [final_answer(text, completion_text(asked)) for text in answered.texts]


def can_compare(judge: Reward) -> bool:
    """Whether answers can be compared, which maj@k needs: if the math reward judges."""
    return isinstance(judge, Math)


def as_text(prompt: Any) -> str:
    """A prompt as one text; messages as JSON."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)


def outcomes(rows: Sequence[Sample], *, greedy: bool, compared: bool) -> list[Outcome]:
    """What became of each problem, from its saved samples."""
    chosen = sorted(
        (row for row in rows if row["greedy"] == greedy),
        key=lambda row: (row["problem"], row["sample"]),
    )
    found = []
    for _, group in groupby(chosen, key=lambda row: row["problem"]):
        samples = list(group)
        found.append(
            Outcome(
                right=[row["right"] for row in samples],
                lengths=[row["tokens"] for row in samples],
                truncated=[row["finish_reason"] == TRUNCATED for row in samples],
                reflects=[row["reflects"] for row in samples],
                classes=[row["class"] for row in samples] if compared else None,
            )
        )
    return found
