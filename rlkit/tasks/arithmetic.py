"""Running sums, of digits or of larger numbers: the problems the embedded models are weak at."""

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
CALLS_OPERANDS, CALLS_DIGITS = 3, 3
"""The sums that the embedded model with a calculator knows."""
SUMS, CALLS = "sums", "calls"
"""What the embedded models are called: one writes running sums, the other calls a calculator."""
DRAWN = 2**16
"""How many problems there are of larger numbers."""
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


def problems_of(operands: int, digits: int) -> list[tuple[int, ...]]:
    """All problems with numbers of one digit, and at most DRAWN of those with larger numbers.

    In lexicographic order, and the same on every machine.
    """
    lowest = 10 ** (digits - 1)
    numbers = range(lowest, 10 * lowest)
    if digits == 1 or len(numbers) ** operands <= DRAWN:
        return list(itertools.product(numbers, repeat=operands))
    found: set[tuple[int, ...]] = set()
    draw = itertools.count()
    while len(found) < DRAWN:
        words = hashlib.sha512(f"{operands}/{digits}/{next(draw)}".encode()).digest()
        pieces = (int.from_bytes(words[8 * i : 8 * i + 8], "big") for i in range(operands))
        found.add(tuple(numbers[piece % len(numbers)] for piece in pieces))
    return sorted(found)


@cache
def split(operands: int, digits: int = 1) -> tuple[Sums, Sums]:
    """The problems with that many operands of that many digits: (training, held out).

    Training problems are in lexicographic order, as the run shuffles them; held-out ones are in the
    order of their hashes, so that the first n are a fair sample.
    """
    problems = problems_of(operands, digits)
    hashes = [unit_hash(question(problem)) for problem in problems]
    held_out = sorted((h, p) for h, p in zip(hashes, problems, strict=True) if h < HELD_OUT)
    train = [p for h, p in zip(hashes, problems, strict=True) if h >= HELD_OUT]
    return Sums(train), Sums([problem for _, problem in held_out])


class ArithmeticConfig(TaskConfig):
    """Settings of the running sums."""

    operands: Annotated[int, Field(ge=2, le=6)] = EMBEDDED_OPERANDS
    """Numbers in a sum. The embedded model has only seen sums of 5 and knows no other length."""
    digits: Annotated[int, Field(ge=1, le=6)] = 1
    """Digits of each number. With 3, and 3 operands, the problems are those of another embedded
    model, which cannot add such numbers but knows a calculator: `environment=calculator`."""


@register("task", "arithmetic")
class Arithmetic(Task[ArithmeticConfig]):
    """Add up digits, writing every running sum: "3+8+5+9+2=" is answered by "11,16,25#27".

    The reward is 1 exactly if the text after a single '#' is the sum in two digits or more; the
    steps before it are free. 1/8 of the 9^operands problems is held out by a hash of the prompt.
    With more digits the problems are 2^16 of those there are: "347+682+915=", answered by "#1944".
    """

    scores = True

    @property
    def embedded(self) -> bool:
        """Whether the sums are as long as those that one of the embedded models knows."""
        known = (EMBEDDED_OPERANDS, 1), (CALLS_OPERANDS, CALLS_DIGITS)
        return (self.config.operands, self.config.digits) in known

    @property
    def base(self) -> str:
        """That for digits, or that for larger numbers."""
        return SUMS if self.config.digits == 1 else CALLS

    def load(self, seed: int) -> TaskData:
        """The problems; the seed changes nothing."""
        train, held_out = split(self.config.operands, self.config.digits)
        return TaskData(train=train, eval=held_out)

    def score(self, completion: str, row: Mapping[str, Any]) -> float:
        """1 if the text after the only '#' is the row's answer."""
        return score_sum(completion, row["answer"])
