"""Every part of a run, built but not yet loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlkit.composition.benchmark_sets import BenchmarkSet
from rlkit.config.run import RunConfig
from rlkit.config.scalars import Scalar
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import (
    AdvantageEstimator,
    AnchorPolicy,
    Environment,
    FileRow,
    Part,
    ReincarnationSchedule,
    ReplayBuffer,
    Reward,
    Task,
    TaskData,
    Tracker,
)
from rlkit.rewards.judges import Judges, find_judges
from rlkit.rollout.base import RolloutEngine
from rlkit.tasks.read import read_rows
from rlkit.training.references import Parts, references_in

CONSOLE = "console"


RATES = ("learning_rate", "critic_learning_rate")


Raw = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Given:
    """Objects a run was given in place of names."""

    model: Any = None
    """A PreTrainedModel, which is trained in place."""
    tokenizer: Any = None


@dataclass(frozen=True)
class Composition:
    """Every part of a run, built and validated; nothing loaded yet."""

    raw: Raw
    config: RunConfig
    parts: Parts
    buffer: ReplayBuffer
    schedule: ReincarnationSchedule
    task: Task
    eval_task: Task
    engine: RolloutEngine[Any]
    rollouts: RolloutEngine[Any]
    """What generates: the engine, or the process it runs in."""
    rewards: Mapping[str, Reward]
    eval_rewards: Mapping[str, Reward]
    trackers: Mapping[str, Tracker]
    benchmarks: Sequence[BenchmarkSet]
    """What else is evaluated on: `eval.on`."""
    scalars: Mapping[str, Scalar]
    """Scalar schedules by the setting they replace ("anchor.beta")."""
    processes: Processes = SINGLE
    given: Given = Given()
    environment: Environment[Any] | None = None
    """What answers the policy turn by turn; None = every response is one turn."""

    @cached_property
    def data(self) -> TaskData:
        """The rows of the task, read on first use."""
        return self.task.load(self.config.seed)

    @property
    def held_out_pairs(self) -> Sequence[Mapping[str, Any]]:
        """The held-out preferences that an evaluation ranks, if the task has any."""
        return self.data.eval[: self.config.eval.problems] if self.task.compares else ()

    @cached_property
    def rows(self) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
        """The rows to train on and those to evaluate on, read on first use.

        Raises UserError if there are none.
        """
        data = self.data
        same = self.eval_task is self.task
        other = data if same else self.eval_task.load(self.config.seed)
        held_out = other.eval[: self.config.eval.problems]
        for name, rows in (("train", data.train), ("eval", held_out)):
            if not len(rows):
                raise UserError(f"the task has no {name} problems")
        return data.train, held_out

    @cached_property
    def tried_files(self) -> dict[str, list[FileRow]]:
        """Rows of the buffer's own files, read before the model; `take_file` hands them over."""
        return {}

    def try_file(self, path: str) -> list[FileRow]:
        """The rows of a part's file, kept for `take_file`."""
        if path not in self.tried_files:
            self.tried_files[path] = read_rows(path)
        return self.tried_files[path]

    def take_file(self, path: str) -> list[FileRow]:
        """The rows of a part's file: those already read, or read now."""
        found = self.tried_files.pop(path, None)
        return read_rows(path) if found is None else found

    def say(self, line: str) -> None:
        """Tell the user, from the main process."""
        if CONSOLE in self.trackers:
            self.trackers[CONSOLE].message(line)

    @property
    def read_by_loss(self) -> frozenset[str] | None:
        """References that parts read; None if the penalty may begin to read others later."""
        if "anchor.beta" in {*self.scalars, *self.schedule.fields()}:
            return None
        return frozenset(references_in(self.parts.needed))

    @property
    def sections(self) -> dict[str, Part[Any]]:
        """The parts by config section, for schedules that set fields."""
        parts = self.parts
        named: dict[str, Part[Any]] = {
            "loss": parts.loss,
            "advantage": parts.advantage,
            "buffer": self.buffer,
            "anchor": parts.anchor,
        }
        named |= {f"correction.{name}": part for name, part in parts.corrections}
        return named | {f"reward.{name}": part for name, part in self.rewards.items()}

    @property
    def restored(self) -> list[str]:
        """Sections of the parts that continue from their own state in a checkpoint."""
        parts = {**self.sections, "schedule": self.schedule}
        return [name for name, part in parts.items() if takes_state(part)]

    @property
    def judges(self) -> Judges:
        """The rewards by which an evaluation counts. Raises UserError if none marks correctness."""
        return find_judges(self.eval_rewards, self.eval_task.mix, self.config.eval.reward)

    @property
    def training_judges(self) -> Judges:
        """Those by which pass rates count in training."""
        same = self.eval_rewards is self.rewards
        wanted = self.config.eval.reward if same else None
        tasks = [task for task, weight in self.task.mix.items() if weight > 0]
        return find_judges(self.rewards, tasks, wanted, training=True)

    @property
    def longest_evaluated(self) -> int:
        """Most tokens of a response in an evaluation."""
        own = self.config.eval.sampling.max_completion_length
        return own or int(self.engine.config.max_completion_length)

    @property
    def every_reward(self) -> list[Reward]:
        """The rewards of training and of every evaluation, each once."""
        benchmarks = (reward for each in self.benchmarks for reward in each.rewards.values())
        every = (*self.rewards.values(), *self.eval_rewards.values(), *benchmarks)
        return list({id(reward): reward for reward in every}.values())

    @property
    def named_rewards(self) -> dict[str, Reward]:
        """The rewards of training, and those that only evaluate."""
        only = {n: r for n, r in self.eval_rewards.items() if r.config.evaluation_only}
        return {**self.rewards, **only}

    @property
    def every_part(self) -> dict[str, Part[Any]]:
        """All parts by config section: those of `sections`, and those that schedules do not set."""
        return {
            **self.sections,
            "schedule": self.schedule,
            "task": self.task,
            "rollout": self.engine,
            **({} if self.environment is None else {"environment": self.environment}),
            **{f"reward.{name}": part.itself for name, part in self.named_rewards.items()},
            **{f"tracker.{name}": part for name, part in self.trackers.items()},
        }

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of every setting of the run, as nested dicts."""
        out: dict[str, Any] = RunConfig(output_dir="unset").model_dump(mode="json")
        for section, part in self.every_part.items():
            kind, _, label = section.partition(".")
            settings = type(part.config)().model_dump(mode="json")
            out.setdefault(kind, {}).update({label: settings} if label else settings)
        return out


def takes_state(part: Part[Any]) -> bool:
    """Whether a part continues from what a checkpoint holds for it, or its critic does."""
    if isinstance(part, AdvantageEstimator) and part.needs_critic:
        return True
    if isinstance(part, AnchorPolicy) and type(part).restore is not AnchorPolicy.restore:
        return True
    return type(part).load_state_dict is not Part.load_state_dict
