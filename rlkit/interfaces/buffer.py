"""What is generated, what is trained on, and what is kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from rlkit.batch import (
    Group,
    Prompt,
    Request,
    Sample,
    Score,
)
from rlkit.interfaces.part import C, FileRow, Part, RunContext, StoredData
from rlkit.ops import (
    stream_rng,
)


class PromptSource(Protocol):
    """What a buffer's plan takes prompts from."""

    num_generations: int
    max_completion_length: int
    max_prompt_length: int

    def take(self, n: int) -> list[Prompt]:
        """The next n prompts of the data order."""
        ...

    def get(self, prompt_id: str) -> Prompt:
        """A prompt by its id."""
        ...

    def prompt(self, prompt_id: str, row: Mapping[str, object]) -> Prompt:
        """A row with a "prompt" and further columns, encoded as the task's own are."""
        ...

    def response(self, text: str) -> Tensor:
        """A text as a response the policy could have written, with its end: token ids [T] int64."""
        ...


class ReplayBuffer(Part[C]):
    """Decides what is generated, what is trained on, and what is kept.

    `batch` is always `train.prompts_per_step`, the number of groups a step trains on.
    """

    context: RunContext = RunContext()
    """The run it belongs to, see `open`."""
    gives_expert: bool = False
    """Whether its batches hold demonstrations, which not every loss can use."""
    reads_rollouts: bool = False
    """Whether it trains on stored rollouts, and may ask for no new ones."""
    unknown_behavior: bool = False
    """Whether its responses are of an unknown policy, so that a part which reads behavior log-probs
    cannot use them."""
    keeps_columns: bool = False
    """Whether its state holds prompts with their columns, which must then be plain values; the run
    checks them before it begins."""

    def open(self, context: RunContext) -> None:
        """Called once before the run begins."""
        self.context = context

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Raise UserError for a row that the buffer needs and cannot use, before a model is loaded.

        `read` reads a file as `context.read_rows` does; `task_rows` are the training problems, and
        can be gone through more than once.
        """

    @property
    def stored_data(self) -> Sequence[StoredData]:
        """Stored rollouts that `open` reads; the run tries them before it loads the model."""
        return ()

    def fresh_share(self, batch: int) -> int:
        """How many groups to generate this step; the rest of the batch is replayed."""
        return batch

    def replays(self, batch: int) -> bool:
        """Whether a batch may hold responses of earlier policies, whose log-probs are stored."""
        return self.fresh_share(batch) < batch

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """What to generate: by default the fresh share, on new prompts.

        Called again while groups are missing.
        """
        return [
            Request(prompt=prompt, n=prompts.num_generations)
            for prompt in prompts.take(self.fresh_share(batch))
        ]

    def scores_wanted(self, step: int) -> list[Sample]:
        """Stored samples the current policy should score before `build`, without gradient."""
        return []

    @abstractmethod
    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """What is trained this step.

        It may merge, replace or add groups; fewer than `batch` is legal.
        """

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Take the scores of wanted and of trained samples, by sample_id.

        A trained sample has none if its update was skipped, since the loss was not finite.
        """

    @abstractmethod
    def add(self, fresh: list[Group], step: int) -> None:
        """Keep this step's fresh groups for later steps."""

    def stats(self) -> dict[str, float]:
        """Further metrics, logged as buffer/<name>."""
        return {}

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    @abstractmethod
    def __len__(self) -> int:
        """How many responses are stored."""

    def close(self) -> None:
        """Called when its stage is over: let go of models that it loaded."""

    def rng(self, step: int) -> np.random.Generator:
        """The buffer's generator for a step: stateless, so that a resumed run draws the same."""
        return stream_rng(self.context.seed, "buffer", step)
