"""The interfaces around the loop: tasks give problems, rewards score, trackers record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import TypeVar

from rlkit.interfaces.part import C, Part, PartConfig, RunContext


class RewardConfig(PartConfig):
    """Fields every reward has."""

    weight: float = 1.0
    """Its weight in the total: reward = sum of weight * value over the rewards that apply."""


RC = TypeVar("RC", bound=RewardConfig, default=RewardConfig)


class Reward(Part[RC]):
    """Scores completions, with TRL's signature."""

    Config: ClassVar[type[PartConfig]] = RewardConfig
    marks_correctness: ClassVar[bool | None] = None
    """Whether 1 means that the response is right, and less that it is not: what an evaluation
    counts. None = it does not say, which counts if no other reward says yes."""
    beside_others: ClassVar[bool] = False
    """Whether a thread of its own may call it while others are called: it waits for processes or a
    server, and shares nothing with other code, such as the state of a random generator."""
    context: RunContext = RunContext()
    """The run it belongs to, see `open`."""

    def open(self, context: RunContext) -> None:
        """Called once before the model is loaded. Raises UserError if a setting contradicts it."""
        self.context = context

    def notes(self) -> Sequence[str]:
        """What the user should know when the run starts, a line each."""
        return ()

    @abstractmethod
    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One value per completion; None = does not apply.

        Chat prompts and completions are message lists. `columns` holds `completion_ids` and every
        column of the task, one entry per completion.
        """

    def counts(self) -> dict[str, int]:
        """Events since the last call ("errors", "timeouts", "lost"); the counts are then reset."""
        return {}

    def close(self) -> None:
        """Release workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """A task's problems.

    Rows with a `prompt` (text or messages) and further columns for the rewards.
    """

    train: Sequence[Mapping[str, Any]]
    eval: Sequence[Mapping[str, Any]]


ChatTemplate = Literal["auto", "never", "always"]


class TaskConfig(PartConfig):
    """Fields every task has."""

    chat_template: ChatTemplate = "auto"
    """Whether a prompt that is text becomes a user message if the tokenizer has a chat template:
    always, never (as in TRL), or auto = unless it carries the template's tokens already. The run
    says what it did. Prompts that are messages always take the template."""

    overlong: Literal["error", "drop"] = "error"
    """What happens to a problem whose prompt is longer than rollout.max_prompt_length."""


TC = TypeVar("TC", bound=TaskConfig, default=TaskConfig)


class Task(Part[TC]):
    """A source of problems, with held-out ones for evaluation."""

    Config: ClassVar[type[PartConfig]] = TaskConfig
    compares: ClassVar[bool] = False
    """Whether its rows are preferences: a prompt with a chosen and a rejected response."""
    default_rewards: ClassVar[tuple[str, ...]] = ()
    """Registered rewards used if the configuration names none and the task has no scorer of its
    own."""

    @property
    def embedded(self) -> bool:
        """Whether the embedded model can answer it."""
        return False

    @abstractmethod
    def load(self, seed: int) -> TaskData:
        """Read or generate the rows. Deterministic in the config and the seed."""

    def all_problems(self, seed: int) -> Sequence[Mapping[str, Any]]:
        """Every row there is to evaluate on if nothing is trained: by default the held-out ones."""
        return self.load(seed).eval

    def score(self, completion: str, row: Mapping[str, Any]) -> float:
        """The task's own reward for a completion; only if `scores` is true."""
        raise TypeError(f"{type(self).__name__} has no scorer of its own")

    scores: ClassVar[bool] = False


class Tracker(Part[C]):
    """Receives metrics, and, if it asks for them, responses and checkpoints.

    Nothing that it does may change what a run computes.
    """

    @abstractmethod
    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin, or continue the run `run_id`; return the id to continue with later, if any."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one training step or one evaluation."""

    def wants_samples(self, step: int) -> bool:
        """Whether `log_samples` is called for the responses of this training step."""
        return False

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record responses that a step trained on, before the step's metrics come.

        Each has prompt (text or messages), response, reward, rewards (by name), age, length,
        finish_reason, advantage and, unless its update was skipped, ratio: the mean over its tokens
        of its advantage, and of its ratio to the policy that sampled it.
        """

    def log_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint lies at `path`; later ones may replace it."""

    def begin(self, step: int) -> None:
        """Called after `start`: the run goes on after `step`, which is 0 for a new one."""

    def message(self, text: str) -> None:
        """Show the user a line."""

    def progress(self, task: str, done: int, of: int) -> None:
        """Show the user how far a task inside a step is; many such calls may come."""

    def close(self, *, failed: bool) -> None:
        """End the run."""
