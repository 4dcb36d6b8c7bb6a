"""Demonstrations: an expert's responses in place of the policy's."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypeVar

from buffers.on_policy import Storeless
from buffers.rows import Ints
from rlkit.batch import Demonstration, Prompt, Request
from rlkit.errors import UserError, suggest
from rlkit.interfaces import FileRow, PartConfig, PromptSource, RunContext, State
from rlkit.ops import PROMPT, stream_rng
from rlkit.registry import register


class DemonstrationConfig(PartConfig):
    """Settings of where demonstrations come from."""

    path: str | None = None
    """File of demonstrations, in any format of a task's data, each row with a `prompt` and the text
    of `column`; null = the rows of the task hold them."""
    column: str = "solution"
    """The column that holds a demonstration's text."""
    overlong: Literal["error", "drop"] = "error"
    """What becomes of a demonstration of more than rollout.max_completion_length tokens, and of one
    whose prompt has more than rollout.max_prompt_length."""


DC = TypeVar("DC", bound=DemonstrationConfig, default=DemonstrationConfig)


def text_of(columns: Mapping[str, Any], column: str, place: str) -> str:
    """A row's demonstration; a number counts as its digits.

    Raises UserError if there is none, or if it is a list or an object.
    """
    value = columns.get(column)
    if value is None or value == "":
        known = [str(name) for name in columns]
        near = f"{suggest(column, known)} Columns: {', '.join(known)}"
        raise UserError(f"{place} has no '{column}'.{near}; set buffer.column, or buffer.path=FILE")
    if not isinstance(value, str | int | float):
        raise UserError(f"{place}: '{column}' must be text, not a {type(value).__name__}")
    return value if isinstance(value, str) else json.dumps(value)


class Demonstrating(Storeless[DC]):
    """A buffer with demonstrations. Nothing of the run itself is stored."""

    gives_expert = True

    def __init__(self, config: DC | None = None) -> None:
        super().__init__(config)
        self.lines: Sequence[FileRow] = ()
        """The demonstrations of the file, in its order."""

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Check the file of demonstrations, if there is one."""
        for line in () if self.config.path is None else read(self.config.path):
            if not isinstance(line.columns.get(PROMPT), list):
                text_of(line.columns, PROMPT, line.place)
            text_of(line.columns, self.config.column, line.place)

    def open(self, context: RunContext) -> None:
        """Read the file. Raises UserError, with the line, for what is no demonstration."""
        super().open(context)
        if self.config.path is not None:
            self.lines = context.read_rows(self.config.path)
            self.check_rows(lambda _: self.lines, ())

    def demonstration(
        self, line: FileRow, prompt: Prompt, prompts: PromptSource, *, reward: float | None
    ) -> Demonstration | None:
        """A row's demonstration; None if it or its prompt is too long and may be dropped.

        Raises UserError if it is too long and may not.
        """
        c = self.config
        ids = prompts.response(text_of(line.columns, c.column, line.place))
        for what, length, key, limit in (
            ("", len(ids), "max_completion_length", prompts.max_completion_length),
            ("the prompt of ", len(prompt.ids), "max_prompt_length", prompts.max_prompt_length),
        ):
            if length > limit and c.overlong == "error":
                raise UserError(
                    f"{what}a demonstration ({line.place}) has {length} tokens, more than "
                    f"rollout.{key}={limit}; raise it or set buffer.overlong=drop"
                )
            if length > limit:
                return None
        return Demonstration(number=line.number, response_ids=ids, reward=reward)

    @abstractmethod
    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """What to generate and which demonstrations to show."""


@register("buffer", "expert")
class Expert(Demonstrating[DemonstrationConfig]):
    """Every group is one demonstration: supervised finetuning, where nothing is generated.

    Each counts as right (reward 1) and is not scored. Without a file the demonstrations are those
    of the next prompts of the data order; a file is read in its own order, shuffled again in each
    epoch. To train beside generated groups, as CHORD (arXiv:2508.11408) does, take `buffer=mix`.
    Status: exact for supervised data; the order is our choice.

    Public code: Trinity-RFT mixes an expert buffer into a batch by a share of it, 0.2 for CHORD.
    """

    sources = ()

    def __init__(self, config: DemonstrationConfig | None = None) -> None:
        super().__init__(config)
        self.position = 0
        """Demonstrations taken from the file so far."""
        self.planned = -1
        self.order: tuple[tuple[int, int, int], Ints] | None = None
        """The seed, the epoch and the number of rows, and the order in which they are read."""

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Check the file of demonstrations, or else the task's."""
        super().check_rows(read, task_rows)
        for row in task_rows if self.config.path is None else ():
            text_of(row.columns, self.config.column, row.place)

    def fresh_share(self, batch: int) -> int:
        """Nothing is generated."""
        return 0

    def replays(self, batch: int) -> bool:
        """Demonstrations have no policy."""
        return False

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """One demonstration per place, none twice, and none if asked again in the same step."""
        if step == self.planned:
            return []
        self.planned = step
        requests: dict[int, Request] = {}
        found = self._from_file(prompts) if self.lines else self._from_task(prompts)
        for _ in range(batch):
            prompt, line = next(found)
            shown = self.demonstration(line, prompt, prompts, reward=1.0)
            if shown is not None:
                requests[line.number] = Request(prompt=prompt, n=0, demonstrations=(shown,))
        if not requests:
            raise UserError(
                f"step {step}: each of {batch} demonstrations is longer than rollout."
                f"max_completion_length={prompts.max_completion_length}, or its prompt than "
                f"rollout.max_prompt_length={prompts.max_prompt_length}; raise them"
            )
        return list(requests.values())

    def state_dict(self) -> State:
        """How far the file has been read."""
        return {"position": self.position}

    def load_state_dict(self, state: State) -> None:
        """Go on from there."""
        self.position = state["position"]

    def _from_file(self, prompts: PromptSource) -> Iterator[tuple[Prompt, FileRow]]:
        while True:
            epoch, place = divmod(self.position, len(self.lines))
            key = (self.context.seed, epoch, len(self.lines))
            if self.order is None or self.order[0] != key:
                rng = stream_rng(self.context.seed, "demonstrations", epoch)
                self.order = key, rng.permutation(len(self.lines))
            line = self.lines[self.order[1][place]]
            self.position += 1
            column = self.config.column
            row = {name: value for name, value in line.columns.items() if name != column}
            yield prompts.prompt(f"expert-{line.number}", row), line

    def _from_task(self, prompts: PromptSource) -> Iterator[tuple[Prompt, FileRow]]:
        while True:
            (prompt,) = prompts.take(1)
            yield prompt, line_of(prompt)


def line_of(prompt: Prompt) -> FileRow:
    """The row of the task that a prompt was made of."""
    return FileRow(
        number=number_of(prompt), place=f"problem {prompt.prompt_id}", columns=prompt.columns
    )


def number_of(prompt: Prompt) -> int:
    """A number for the demonstration of a prompt, the same whenever the prompt comes."""
    digest = hashlib.sha256(prompt.prompt_id.encode()).digest()
    return 1 + int.from_bytes(digest[:6], "big")
