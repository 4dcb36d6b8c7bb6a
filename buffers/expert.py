"""Demonstrations: an expert's responses beside the policy's, or in their place."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeVar

from buffers.on_policy import Storeless
from rlkit.batch import Demonstration, Prompt, Request
from rlkit.errors import UserError, suggest
from rlkit.interfaces import PartConfig, PromptSource, State
from rlkit.ops import stream_rng
from rlkit.registry import register

PROMPT = "prompt"


class DemonstrationConfig(PartConfig):
    """Settings of where demonstrations come from."""

    path: str | None = None
    """JSON Lines file of demonstrations, each line with a `prompt` and the text of `column`; null =
    the rows of the task hold them."""
    column: str = "solution"
    """The column that holds a demonstration's text."""
    overlong: Literal["error", "drop"] = "error"
    """What becomes of a demonstration of more than rollout.max_completion_length tokens."""


DC = TypeVar("DC", bound=DemonstrationConfig, default=DemonstrationConfig)


@dataclass(frozen=True)
class Line:
    """A demonstration as a file holds it."""

    number: int
    row: Mapping[str, Any]


def read_lines(path: str, column: str) -> list[Line]:
    """The demonstrations of a file.

    Raises UserError, with the line, for what is no such file.
    """
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise UserError(f"buffer.path={path} cannot be read: {error.strerror}") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise UserError(f"{path}:{number} is not JSON: {error}") from error
        if row is None:
            continue
        for key in (PROMPT, column):
            check_column(row, key, f"{path}:{number}")
        lines.append(Line(number, row))
    if not lines:
        raise UserError(f"buffer.path={path} holds no demonstration")
    return lines


def check_column(row: object, column: str, place: str) -> None:
    """Raise UserError if a row has no text in the column."""
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: a demonstration must be an object with named columns")
    if not row.get(column):
        known = [str(name) for name in row]
        raise UserError(
            f"{place} has no '{column}'.{suggest(column, known)} Columns: {', '.join(known)}"
        )


def question(prompt: Prompt) -> str:
    """What two prompts that ask the same have in common."""
    return json.dumps(prompt.text_or_messages, sort_keys=True)


class Demonstrating(Storeless[DC]):
    """A buffer with demonstrations. Nothing of the run itself is stored."""

    gives_expert = True

    def __init__(self, config: DC | None = None) -> None:
        super().__init__(config)
        c = self.config
        self.lines = read_lines(c.path, c.column) if c.path is not None else []

    def demonstration(
        self, row: Mapping[str, Any], number: int, prompts: PromptSource, *, reward: float | None
    ) -> Demonstration | None:
        """A row's demonstration; None if it is too long and may be dropped.

        Raises UserError if it is too long and may not.
        """
        c = self.config
        ids = prompts.response(str(row[c.column]))
        if len(ids) <= prompts.max_completion_length:
            return Demonstration(number=number, response_ids=ids, reward=reward)
        if c.overlong == "error":
            raise UserError(
                f"a demonstration has {len(ids)} tokens, more than "
                f"rollout.max_completion_length={prompts.max_completion_length}; raise it or set "
                "buffer.overlong=drop"
            )
        return None

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

    def fresh_share(self, batch: int) -> int:
        """Nothing is generated."""
        return 0

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """One demonstration per place, none twice; fewer if there are no more."""
        requests: dict[int, Request] = {}
        found = self._from_file(prompts) if self.lines else self._from_task(prompts)
        for _ in range(batch):
            prompt, row, number = next(found)
            shown = self.demonstration(row, number, prompts, reward=1.0)
            if shown is not None:
                requests[number] = Request(prompt=prompt, n=0, demonstrations=(shown,))
        if not requests:
            raise UserError(
                f"step {step}: each of {batch} demonstrations is longer than "
                f"rollout.max_completion_length={prompts.max_completion_length}; raise it"
            )
        return list(requests.values())

    def state_dict(self) -> State:
        """How far the file has been read."""
        return {"position": self.position}

    def load_state_dict(self, state: State) -> None:
        """Go on from there."""
        self.position = state["position"]

    def _from_file(self, prompts: PromptSource) -> Iterator[tuple[Prompt, Mapping[str, Any], int]]:
        while True:
            epoch, place = divmod(self.position, len(self.lines))
            order = stream_rng(self.context.seed, "demonstrations", epoch).permutation(
                len(self.lines)
            )
            line = self.lines[order[place]]
            self.position += 1
            row = {name: value for name, value in line.row.items() if name != self.config.column}
            yield prompts.prompt(f"expert-{line.number}", row), line.row, line.number

    def _from_task(self, prompts: PromptSource) -> Iterator[tuple[Prompt, Mapping[str, Any], int]]:
        while True:
            (prompt,) = prompts.take(1)
            check_column(prompt.columns, self.config.column, f"problem {prompt.prompt_id}")
            yield prompt, prompt.columns, number_of(prompt)


def number_of(prompt: Prompt) -> int:
    """A number for the demonstration of a prompt, the same whenever the prompt comes."""
    digest = hashlib.sha256(prompt.prompt_id.encode()).digest()
    return 1 + int.from_bytes(digest[:6], "big")


class LuffyConfig(DemonstrationConfig):
    """Settings of how demonstrations join the groups of their prompts."""

    demonstrations: Annotated[int, Field(ge=1)] = 1
    """Demonstrations of a prompt that join its group, if it has as many."""
    keep_size: bool = True
    """Whether they take the places of new responses, so that a group keeps its size: LUFFY's 7 + 1.
    false = all num_generations responses are generated besides."""
    reward: float | None = None
    """The reward a demonstration gets; null = the run's rewards score it, as LUFFY's do."""


@register("buffer", "luffy")
class Luffy(Demonstrating[LuffyConfig]):
    """Groups of new responses, joined by demonstrations of the same prompt.

    Advantages are over the whole group. A prompt without a demonstration gets an ordinary group.
    The task's rows hold one demonstration each; a file may hold several for a prompt, of which the
    first ones are taken. Source: LUFFY (arXiv:2504.14945). Status: exact for one demonstration.

    Public code: ElliottYan/LUFFY, groups of 7 + 1, demonstrations without their log-probs.
    """

    sources = ("2504.14945",)

    def __init__(self, config: LuffyConfig | None = None) -> None:
        super().__init__(config)
        self.by_question: dict[str, list[Line]] = {}
        """The file's demonstrations by what they answer; filled when the first prompts come."""

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """The next prompts in the data order with their demonstrations, each once per step."""
        taken = prompts.take(batch)
        first = {prompt.prompt_id: place for place, prompt in reversed(list(enumerate(taken)))}
        return [
            self._request(prompt, prompts, shows=first[prompt.prompt_id] == place)
            for place, prompt in enumerate(taken)
        ]

    def _request(self, prompt: Prompt, prompts: PromptSource, *, shows: bool) -> Request:
        c, size = self.config, prompts.num_generations
        lines = self._lines(prompt, prompts)[: c.demonstrations] if shows else []
        shown = [
            demonstration
            for line in lines
            if (
                demonstration := self.demonstration(line.row, line.number, prompts, reward=c.reward)
            )
        ]
        left = size - len(shown) if c.keep_size else size
        if left < 1:
            raise UserError(
                f"rollout.num_generations={size} leaves no place for new responses beside "
                f"{len(shown)} demonstrations; raise it or set buffer.keep_size=false"
            )
        return Request(prompt=prompt, n=left, demonstrations=tuple(shown))

    def _lines(self, prompt: Prompt, prompts: PromptSource) -> list[Line]:
        if not self.lines:
            text = prompt.columns.get(self.config.column)
            return [Line(number_of(prompt), prompt.columns)] if text else []
        if not self.by_question:
            for line in self.lines:
                asked = question(prompts.prompt("", line.row))
                self.by_question.setdefault(asked, []).append(line)
        return self.by_question.get(question(prompt), [])
