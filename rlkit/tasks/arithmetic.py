"""Running sums of one-digit numbers: the problems the embedded model is weak at."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Annotated, Any, overload

from pydantic import Field

from rlkit.interfaces import Task, TaskConfig, TaskData
from rlkit.registry import register
from rlkit.tasks.split import unit_hash

EMBEDDED_OPERANDS = 5
HELD_OUT = 1 / 8
"""Share of the problems that is never trained on, by `unit_hash` of the prompt."""


def question(operands: Sequence[int]) -> str:
    """The prompt: (3, 8, 5) -> "3+8+5="."""
    return "+".join(map(str, operands)) + "="


def running_sums(operands: Sequence[int]) -> list[int]:
    """The sums after the second, the third, ... operand: (3, 8, 5) -> [11, 16]."""
    return list(itertools.accumulate(operands))[1:]


def response(sums: Sequence[int]) -> str:
    """Sums with two digits each, the last one after '#': [11, 16, 25] -> "11,16#25"."""
    *steps, last = (f"{total:02d}" for total in sums)
    return ",".join(steps) + "#" + last


def score_sum(completion: str, answer: str) -> float:
    """1 if the completion has exactly one '#' and nothing but the answer after it, else 0."""
    _, *tails = completion.split("#")
    return float(tails == [answer])


class Sums(Sequence[Mapping[str, Any]]):
    """Rows {"prompt", "answer", "solution"} made on access."""

    def __init__(self, problems: Sequence[tuple[int, ...]]) -> None:
        self.problems = problems

    def __len__(self) -> int:
        return len(self.problems)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sums: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sums:
        if isinstance(index, slice):
            return Sums(self.problems[index])
        operands = self.problems[index]
        return {
            "prompt": question(operands),
            "answer": f"{sum(operands):02d}",
            "solution": response(running_sums(operands)),
        }

    @cached_property
    def row_hashes(self) -> Sequence[str]:
        """16 hexadecimal digits of the sha256 of each prompt, which decides the whole row."""
        prompts = (question(operands).encode() for operands in self.problems)
        return [hashlib.sha256(prompt).hexdigest()[:16] for prompt in prompts]


@cache
def split(operands: int) -> tuple[Sums, Sums]:
    """All problems with that many operands from 1 to 9: (training, held out).

    Training problems are in lexicographic order, as the run shuffles them; held-out ones are in the
    order of their hashes, so that the first n are a fair sample.
    """
    problems = list(itertools.product(range(1, 10), repeat=operands))
    hashes = [unit_hash(question(problem)) for problem in problems]
    held_out = sorted((h, p) for h, p in zip(hashes, problems, strict=True) if h < HELD_OUT)
    train = [p for h, p in zip(hashes, problems, strict=True) if h >= HELD_OUT]
    return Sums(train), Sums([problem for _, problem in held_out])


class ArithmeticConfig(TaskConfig):
    """Settings of the running sums."""

    operands: Annotated[int, Field(ge=2, le=6)] = EMBEDDED_OPERANDS
    """Numbers in a sum. The embedded model has only seen sums of 5 and knows no other length."""


@register("task", "arithmetic")
class Arithmetic(Task[ArithmeticConfig]):
    """Add up digits, writing every running sum: "3+8+5+9+2=" is answered by "11,16,25#27".

    The reward is 1 exactly if the text after a single '#' is the sum in two digits; the steps
    before it are free. 1/8 of the 9^operands problems is held out by a hash of the prompt.
    """

    scores = True

    @property
    def embedded(self) -> bool:
        """Whether the sums are as long as those the embedded model knows."""
        return self.config.operands == EMBEDDED_OPERANDS

    def load(self, seed: int) -> TaskData:
        """The problems; the seed changes nothing."""
        train, held_out = split(self.config.operands)
        return TaskData(train=train, eval=held_out)

    def score(self, completion: str, row: Mapping[str, Any]) -> float:
        """1 if the text after the only '#' is the row's answer."""
        return score_sum(completion, row["answer"])
