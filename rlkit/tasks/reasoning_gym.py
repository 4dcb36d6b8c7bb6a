"""Any data set of the package reasoning-gym, with its own scorer."""

from __future__ import annotations

import dataclasses
import importlib
import random
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from rlkit.errors import UserError, suggest
from rlkit.interfaces import Task, TaskConfig, TaskData
from rlkit.registry import register
from rlkit.tasks.gym_scorer import GymScorer
from rlkit.tasks.split import unit_hash

HELD_OUT = 1 / 8
"""Share of all questions that belong to the evaluation, by `unit_hash`."""
NUMBER = re.compile(r"(?<!\d)[-\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

Scalar = bool | int | float | str


class ReasoningGymConfig(TaskConfig):
    """Settings of a reasoning-gym data set."""

    dataset: str = "chain_sum"
    """Its name in reasoning-gym."""
    params: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Settings of the data set itself, by its own names: {min_terms: 2, max_terms: 2}."""
    size: Annotated[int, Field(ge=1)] = 2000
    """Different training problems; fewer if the data set has no more."""
    eval_size: Annotated[int, Field(ge=1)] = 256
    """Different held-out problems; fewer if the data set has no more."""
    data_seed: Annotated[int, Field(ge=0)] = 0
    """Which problems are drawn. Runs with different seeds share their problems."""
    answer_format: Literal["raw", "last_number", "tag"] = "raw"
    """What of a completion is scored: raw = all of it, last_number = the last number in it, tag =
    the content of the last <answer>...</answer>. Chat models put words around a number: they need
    last_number or tag."""
    suffix: str = ""
    """Text appended to every question, such as an instruction on the answer's form."""
    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds to score one completion; one that takes longer gets 0 and is counted in
    reward/timeouts."""


def extract(completion: str, answer_format: str) -> str | None:
    """The part of a completion that is the answer; None if there is none."""
    if answer_format == "raw":
        return completion.strip()
    if answer_format == "tag":
        tagged = TAG.findall(completion)
        return tagged[-1].strip() if tagged else None
    numbers = NUMBER.findall(completion)
    return numbers[-1].replace(",", "").replace("\u2212", "-") if numbers else None


def divide(
    entry: Callable[[int], Mapping[str, Any]], size: int, eval_size: int
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Draw entries 0, 1, ... until both sides of the split have enough different questions.

    The hash of a question decides its side, so no question is on both, whatever the seed or the
    sizes. After twice the expected number of draws the data set is taken to have no more.
    Returns (training, held out).
    """
    train: dict[str, Mapping[str, Any]] = {}
    held_out: dict[str, Mapping[str, Any]] = {}
    for index in range(draws(size, eval_size)):
        if len(train) >= size and len(held_out) >= eval_size:
            break
        drawn = entry(index)
        side, wanted = (
            (held_out, eval_size) if unit_hash(drawn["question"]) < HELD_OUT else (train, size)
        )
        if len(side) < wanted:
            side.setdefault(drawn["question"], drawn)
    return list(train.values()), list(held_out.values())


def draws(size: int, eval_size: int) -> int:
    """The most entries to draw."""
    return 64 + 2 * int(max(size / (1 - HELD_OUT), eval_size / HELD_OUT))


@register("task", "reasoning_gym")
class ReasoningGym(Task[ReasoningGymConfig]):
    """Procedurally generated problems with verifiable answers (reasoning-gym, arXiv:2505.24760).

    The reward is the data set's own score in [0, 1], which may be partial; a text it cannot parse
    gets 0. One whose scoring process died twice has none and is counted in reward/lost. Rows:
    prompt, answer (None if there is no single right one), and entry and params (if there are any),
    which the scorer reads.
    """

    scores = True
    caches = ("_counts", "_scorer")

    def __init__(self, config: ReasoningGymConfig | None = None) -> None:
        super().__init__(config)
        self._counts: Counter[str] = Counter()

    def load(self, seed: int) -> TaskData:
        """The problems, whatever the seed. Raises UserError for unknown names and settings."""
        c = self.config
        dataset = self._create(draws(c.size, c.eval_size))
        with _global_random(c.data_seed):
            train, held_out = divide(dataset.__getitem__, c.size, c.eval_size)
        if not train or not held_out:
            raise UserError(
                f"task.dataset={c.dataset} gives only {len(train) + len(held_out)} different "
                "questions, too few to hold some out; widen its ranges in task.params"
            )
        return TaskData(train=[self._row(e) for e in train], eval=[self._row(e) for e in held_out])

    def score(self, completion: str, row: Mapping[str, Any]) -> float | None:
        """The data set's score of the answer in the completion.

        Raises UserError if its scorer fails whatever the answer.
        """
        return self.score_all([completion], [row])[0]

    def score_all(
        self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> list[float | None]:
        """The same for several, in parallel."""
        c = self.config
        texts = [extract(completion, c.answer_format) for completion in completions]
        verdicts = self._scorer.judge([row["entry"] for row in rows], texts, c.timeout)
        self._counts.update(v.event for v in verdicts if v.event is not None)
        return [verdict.mark for verdict in verdicts]

    def counts(self) -> dict[str, int]:
        """The "timeouts" and "lost" completions since the last call."""
        counts, self._counts = dict(self._counts), Counter()
        return counts

    @cached_property
    def _scorer(self) -> GymScorer:
        return GymScorer(self.config.dataset, self.config.params)

    def _row(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        prompt = entry["question"] + self.config.suffix
        row = {"prompt": prompt, "answer": entry["answer"], "entry": entry}
        return {**row, "params": self.config.params} if self.config.params else row

    def _create(self, size: int) -> Any:
        c = self.config
        package = importlib.import_module("reasoning_gym")
        known = importlib.import_module("reasoning_gym.factory").DATASETS
        if c.dataset not in known:
            raise UserError(
                f"reasoning-gym has no data set '{c.dataset}'.{suggest(c.dataset, known)} "
                f"It has {len(known)}, listed in its GALLERY.md"
            )
        fields = {f.name for f in dataclasses.fields(known[c.dataset][1])} - {"seed", "size"}
        for name in c.params:
            if name not in fields:
                raise UserError(
                    f"unknown key task.params.{name}.{suggest(name, fields)} "
                    f"Known for {c.dataset}: {', '.join(sorted(fields)) or 'none'}"
                )
        try:
            return package.create_dataset(c.dataset, **c.params, seed=c.data_seed, size=size)
        except (AssertionError, ValueError, TypeError) as error:
            raise UserError(
                f"task.params does not suit {c.dataset}: {error or type(error).__name__}"
            ) from None


@contextmanager
def _global_random(seed: int) -> Generator[None]:
    """Python's global generator seeded, then restored: some data sets draw from it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
