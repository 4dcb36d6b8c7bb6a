"""Demonstrations beside the policy's own responses: LUFFY."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import TypeVar

from buffers.expert import Demonstrating, DemonstrationConfig, line_of, text_of
from rlkit.batch import Messages, Prompt, Request
from rlkit.errors import UserError
from rlkit.interfaces import FileRow, PromptSource, RunContext
from rlkit.ops import PROMPT
from rlkit.registry import register

PROBED = 8
"""How many demonstrations without a prompt are compared with every problem, to say why."""


def question(asked: str | Messages) -> str:
    """What two prompts that ask the same have in common."""
    return json.dumps(asked, sort_keys=True)


def last_text(asked: str | Messages) -> str:
    """The text that is to be answered: the last message's."""
    return asked if isinstance(asked, str) else asked[-1]["content"]


def matches(path: str, demonstrations: Sequence[str | Messages], context: RunContext) -> str:
    """How many demonstrations answer a problem of the task, and why others may not, in words."""
    known = {question(asked) for asked in context.problems.values()}
    unmatched = [asked for asked in demonstrations if question(asked) not in known]
    count, total = len(demonstrations) - len(unmatched), len(demonstrations)
    line = f"{path}: {count} of {total} demonstrations answer a prompt of the task."
    if not unmatched:
        return line
    texts = {last_text(asked) for asked in context.problems.values()}
    framed = sum(last_text(asked) in texts for asked in unmatched)
    ends = {
        text.removeprefix(last_text(asked))
        for asked in unmatched[:PROBED]
        for text in texts
        if text.startswith(last_text(asked)) and text != last_text(asked)
    }
    if framed:
        line += f" {framed} others would without the messages before them, such as a system prompt."
    elif ends:
        line += f" The task's prompts end with {json.dumps(min(ends, key=len))} (task.suffix)."
    return line


class LuffyConfig(DemonstrationConfig):
    """Settings of how demonstrations join the groups of their prompts."""

    demonstrations: Annotated[int, Field(ge=1)] = 1
    """Demonstrations of a prompt that join its group, if it has as many."""
    keep_size: bool = True
    """Whether they take the places of new responses, so that a group keeps its size: LUFFY's 7 + 1.
    false = all num_generations responses are generated besides."""
    reward: float | None = None
    """The reward a demonstration gets; null = the run's rewards score it, as LUFFY's do."""


JC = TypeVar("JC", bound=LuffyConfig, default=LuffyConfig)


@register("buffer", "luffy")
class Luffy(Demonstrating[JC]):
    """Groups of new responses, joined by demonstrations of the same prompt.

    Advantages are over the whole group. A prompt without a demonstration gets an ordinary group.
    The task's rows hold one demonstration each; a file may hold several for a prompt, of which the
    first ones are taken. Source: LUFFY (arXiv:2504.14945). Status: exact for one demonstration.

    Public code: ElliottYan/LUFFY, groups of 7 + 1, demonstrations without their log-probs.
    """

    Config = LuffyConfig
    sources: ClassVar[tuple[str, ...]] = ("2504.14945",)

    def __init__(self, config: JC | None = None) -> None:
        super().__init__(config)
        self.by_question: dict[str, list[FileRow]] = {}
        """The file's demonstrations by what they answer."""

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Check the file of demonstrations, or else that some row of the task has one."""
        super().check_rows(read, task_rows)
        first: FileRow | None = None
        for row in task_rows if self.config.path is None else ():
            first = row if first is None else first
            if self._shows(row.columns):
                return
        if first is not None:
            text_of(first.columns, self.config.column, first.place)  # raises

    def open(self, context: RunContext) -> None:
        """Read the file, and say how many of its demonstrations answer a problem of the task."""
        super().open(context)
        asked = [context.as_asked(line.columns[PROMPT]) for line in self.lines]
        self.by_question = {}
        for line, each in zip(self.lines, asked, strict=True):
            self.by_question.setdefault(question(each), []).append(line)
        if self.lines:
            context.say(matches(str(self.config.path), asked, context))

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
        lines = self._lines(prompt)[: c.demonstrations] if shows else []
        found = [self.demonstration(line, prompt, prompts, reward=c.reward) for line in lines]
        shown = [demonstration for demonstration in found if demonstration is not None]
        left = size - len(shown) if c.keep_size else size
        if left < 1:
            raise UserError(
                f"rollout.num_generations={size} leaves no place for new responses beside "
                f"{len(shown)} demonstrations; raise it or set buffer.keep_size=false"
            )
        return Request(prompt=prompt, n=left, demonstrations=tuple(shown))

    def _shows(self, columns: Mapping[str, Any]) -> bool:
        return columns.get(self.config.column) not in (None, "")

    def _lines(self, prompt: Prompt) -> list[FileRow]:
        if self.config.path is None:
            return [line_of(prompt)] if self._shows(prompt.columns) else []
        return self.by_question.get(question(prompt.text_or_messages), [])
