"""Preferences as groups of two: a chosen and a rejected response to a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field

from buffers.expert import line_of
from buffers.on_policy import Storeless
from rlkit.batch import Group, Prompt, Request, Sample
from rlkit.errors import UserError
from rlkit.interfaces import FileRow, PartConfig, PromptSource, RunContext, State
from rlkit.ops import PROMPT, split_preference, stream_rng
from rlkit.registry import register

FIRST_ID = -(2**41)
"""Sample ids of pairs count down from here, below those of stored rollouts."""


class PairsConfig(PartConfig):
    """Settings of where preferences come from."""

    path: str | None = None
    """File of preferences, in any format of a task's data, each row with `chosen` and `rejected`,
    and with `prompt` unless both begin with it: TRL's formats, texts or messages. null = the rows
    of the task hold them."""
    votes: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    """The columns that hold how many votes (or which score) the chosen and the rejected response
    have: they become the rewards. Empty = rewards 1 and 0."""
    overlong: Literal["error", "drop"] = "error"
    """What becomes of a preference with a response of more than rollout.max_completion_length
    tokens, or a prompt of more than rollout.max_prompt_length."""


@register("buffer", "pairs")
class Pairs(Storeless[PairsConfig]):
    """Every group is one preference: the chosen response with the higher reward, and the rejected.

    Nothing is generated; with `loss=online_dpo` this is DPO (arXiv:2305.18290), with votes and
    `loss=vdpo` or `vipo` it is VPO (arXiv:2410.22891) on given preferences. The log-probs of who
    wrote the responses are unknown: a loss that reads behavior log-probs is refused. Each epoch has
    an order of its own. Status: exact for the data; the order is our choice.

    Public code: TRL's DPOTrainer.
    """

    sources = ("2305.18290", "2410.22891")
    reads_rollouts = True
    unknown_behavior = True

    def __init__(self, config: PairsConfig | None = None) -> None:
        super().__init__(config)
        self.lines: Sequence[FileRow] = ()
        self.position = 0
        """Preferences taken so far, over all epochs."""
        self.step = -1
        """The last one that was planned."""
        self.planned: list[Group] = []
        """Its groups."""
        self.order: tuple[int, list[int]] | None = None
        """An epoch, and the order in which its rows are read."""

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Check the file of preferences, or else the task's."""
        for line in task_rows if self.config.path is None else read(self.config.path):
            split_preference(line.columns, line.place)
            self._rewards(line)

    def open(self, context: RunContext) -> None:
        """Read the file. Raises UserError, with the line, for what is no preference."""
        super().open(context)
        if self.config.path is not None:
            self.lines = context.read_rows(self.config.path)
            self.check_rows(lambda _: self.lines, ())

    def fresh_share(self, batch: int) -> int:
        """Nothing is generated."""
        return 0

    def replays(self, batch: int) -> bool:
        """Nobody knows who wrote them."""
        return False

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """Choose this step's preferences; nothing is generated, nor chosen anew if asked again."""
        if step == self.step:
            return []
        self.step = step
        if self.config.path is None:
            taken = {prompt.prompt_id: prompt for prompt in prompts.take(batch)}
            found = [self._from_task(prompt, prompts) for prompt in taken.values()]
        else:
            rows: dict[int, None] = {}
            while len(rows) < min(batch, len(self.lines)):
                rows.setdefault(self._next())
            found = [self._from_file(self.lines[row], prompts) for row in rows]
        self.planned = [group for group in found if group is not None]
        if not self.planned:
            raise UserError(
                f"step {step}: each of {len(found)} preferences is longer than "
                f"rollout.max_completion_length={prompts.max_completion_length} or "
                f"rollout.max_prompt_length={prompts.max_prompt_length}; raise them"
            )
        return []

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The preferences of this step."""
        return self.planned

    def state_dict(self) -> State:
        """How far the file has been read."""
        return {"position": self.position}

    def load_state_dict(self, state: State) -> None:
        """Go on from there."""
        self.position = state["position"]

    def _next(self) -> int:
        epoch, place = divmod(self.position, len(self.lines))
        if self.order is None or self.order[0] != epoch:
            rng = stream_rng(self.context.seed, "pairs", epoch)
            self.order = epoch, rng.permutation(len(self.lines)).tolist()
        self.position += 1
        return self.order[1][place]

    def _from_file(self, line: FileRow, prompts: PromptSource) -> Group | None:
        asked, *texts = split_preference(line.columns, line.place)
        kept = {name: value for name, value in line.columns.items() if name != PROMPT}
        prompt = prompts.prompt(f"pair-{line.number}", {PROMPT: asked, **kept})
        return self._group(line, prompt, texts, prompts)

    def _from_task(self, prompt: Prompt, prompts: PromptSource) -> Group | None:
        line = line_of(prompt)
        row = {**line.columns, PROMPT: prompt.text_or_messages}
        _, *texts = split_preference(row, line.place)
        return self._group(line, prompt, texts, prompts)

    def _group(
        self, line: FileRow, prompt: Prompt, texts: Sequence[str], prompts: PromptSource
    ) -> Group | None:
        """The chosen and the rejected response to a prompt; None if they are dropped."""
        answers = [prompts.response(text) for text in texts]
        if not self._fits(prompt, answers, prompts, line.place):
            return None
        first = FIRST_ID - 2 * line.number
        rows = zip((first, first - 1), answers, self._rewards(line), strict=True)
        samples = [_sample(prompt, number, ids, reward) for number, ids, reward in rows]
        return Group(prompt=prompt, samples=samples)

    def _fits(
        self, prompt: Prompt, answers: Sequence[torch.Tensor], prompts: PromptSource, place: str
    ) -> bool:
        """Whether a preference is short enough. Raises UserError if it must be."""
        longest = max(len(ids) for ids in answers)
        for what, length, key, limit in (
            ("a response", longest, "max_completion_length", prompts.max_completion_length),
            ("the prompt", len(prompt.ids), "max_prompt_length", prompts.max_prompt_length),
        ):
            if length > limit and self.config.overlong == "error":
                raise UserError(
                    f"{place}: {what} has {length} tokens, more than rollout.{key}={limit}; raise "
                    "it or set buffer.overlong=drop"
                )
            if length > limit:
                return False
        return True

    def _rewards(self, line: FileRow) -> tuple[float, float]:
        if not self.config.votes:
            return 1.0, 0.0
        counts = [line.columns.get(name) for name in self.config.votes]
        known = [float(c) for c in counts if isinstance(c, int | float)]
        if len(known) != 2:
            raise UserError(
                f"{line.place}: buffer.votes={json.dumps(self.config.votes)} must name two columns "
                f"with numbers, and they hold {counts}"
            )
        if known[0] < known[1]:
            raise UserError(f"{line.place}: the rejected response has more votes than the chosen")
        return known[0], known[1]


def _sample(prompt: Prompt, number: int, ids: torch.Tensor, reward: float) -> Sample:
    return Sample(
        sample_id=number,
        prompt_id=prompt.prompt_id,
        response_ids=ids,
        loss_mask=torch.ones(len(ids), dtype=torch.bool),
        behavior_logp=torch.full((len(ids),), torch.nan),
        policy_version=torch.zeros(len(ids), dtype=torch.int32),
        reward=reward,
        rewards={},
        finish_reason="stop",
        step=0,
    )
