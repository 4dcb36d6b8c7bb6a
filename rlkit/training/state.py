"""What a run is made of, what it has done so far, and how that is saved and restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlkit.config.run import RunConfig
from rlkit.config.scalars import Scalar
from rlkit.config.validation import with_value
from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.evaluation.evaluator import Evaluator, Evaluators
from rlkit.interfaces import Part, ReincarnationSchedule, ReplayBuffer, State, Tracker
from rlkit.models.policy import Policy
from rlkit.rollout.base import RolloutEngine
from rlkit.rollout.lag import Lag
from rlkit.runs.checkpoint import (
    CheckpointError,
    load_tree,
    prune,
    reason_of,
    save_tree,
    write_checkpoint,
)
from rlkit.runs.folder import RunFolder
from rlkit.runs.generators import load_rng_state, rng_state
from rlkit.runs.resume import check_data
from rlkit.runs.stopping import StopRequest
from rlkit.stored.write import RolloutWriter
from rlkit.tasks.stream import PromptStream
from rlkit.training.collect import Collector
from rlkit.training.counters import Counters, load_counters
from rlkit.training.held_state import HeldState
from rlkit.training.prepare import Scorer
from rlkit.training.references import Parts
from rlkit.training.saving import write_model
from rlkit.training.update import Updater


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything a run, or a stage of it, is composed of. Complete once constructed."""

    config: RunConfig
    raw: Mapping[str, Any]
    """The run's configuration as composed, saved in checkpoints."""
    policy: Policy
    parts: Parts
    buffer: ReplayBuffer
    schedule: ReincarnationSchedule
    engine: RolloutEngine[Any]
    collector: Collector
    prompts: PromptStream
    evaluator: Evaluator | Evaluators
    run_folder: RunFolder
    trackers: Mapping[str, Tracker]
    sections: Mapping[str, Part[Any]]
    """Parts by their config section: schedules set their fields, checkpoints keep their state."""
    scalars: Mapping[str, Scalar]
    """Scalar schedules by the field they set ("anchor.beta")."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the user's modules, saved in checkpoints too."""
    stop: StopRequest
    """Asked after each step: whether to end the run there, with a checkpoint."""
    rollout_writer: RolloutWriter | None = None
    """Keeps every response of the run, if that is asked for; in the main process alone."""
    notes: Sequence[str] = ()
    """What the user should know of the data before the first step."""

    @property
    def processes(self) -> Processes:
        """The ranks that train; all hold the same buffer and make the same decisions."""
        return self.policy.processes

    def say(self, line: str) -> None:
        """Tell the user."""
        for tracker in self.trackers.values():
            tracker.message(line)

    def checkpoint_saved(self, step: int) -> None:
        """Tell the user and the trackers of a checkpoint."""
        self.say(f"checkpoint-{step} saved")
        for tracker in self.trackers.values():
            tracker.log_checkpoint(step, self.run_folder.path / f"checkpoint-{step}")

    def progress(self, task: str, done: int, of: int) -> None:
        """Tell the user how far a task inside a step is."""
        for tracker in self.trackers.values():
            tracker.progress(task, done, of)


def forwards_of(checkpoint: Path | None) -> State:
    """How forwards were made in the run of a checkpoint; empty if it does not say."""
    path = checkpoint / "state" / "forwards" if checkpoint is not None else None
    return load_tree(path) if path is not None and path.with_suffix(".json").exists() else {}


class TrainState:
    """Everything a step reads and changes; a checkpoint is this, saved to disk."""

    def __init__(self, session: Session, count: Counters, previous: Updater | None = None) -> None:
        self.session, self.count = session, count
        self.lag = Lag(session.engine, session.policy)
        self.updater = Updater(
            session.config,
            session.policy,
            session.parts,
            session.engine.config.max_completion_length,
            previous.learner if previous is not None else None,
        )
        trains = session.policy.batch_invariant
        own = session.engine.matches_trainer
        self.scorer = Scorer(
            policy=session.policy,
            critic=self.updater.critic.critic if self.updater.critic else None,
            forwards=self.updater.forwards,
            behavior=("own" if trains else "rounded") if own else "foreign",
            first=self.updater.first_rows,
        )
        self.held = HeldState(
            {**session.sections, **self._stateful(), "schedule": session.schedule}
        )

    def advance(self, metrics: dict[str, float]) -> None:
        """Count a step that is done; the first shows whether parts hold state they do not save."""
        self.count.step, self.count.metrics = self.count.step + 1, metrics
        if self.count.step == 1:
            self.held.check()

    def set_field(self, name: str, value: float) -> None:
        """Rebuild a config through its constructor with another value of "section.field"."""
        section, _, key = name.rpartition(".")
        owners: dict[str, Any] = {**self.session.sections, "train": self.updater}
        if section not in owners:
            raise UserError(
                f"the schedule sets {name}, but this run has no such field: it begins with one of "
                f"{', '.join(owners)}"
            )
        owners[section].config = with_value(owners[section].config, name, value)
        self.count.values[name] = getattr(owners[section].config, key)

    def save(self, *, needed: bool) -> None:
        """Write checkpoint-<step> and remove the oldest ones beyond checkpoint.keep.

        A checkpoint that cannot be written, whatever the reason, ends the run if
        checkpoint.on_error says so, or if it is needed: without the last one, the work since the
        one before would be lost.
        """
        config, count = self.session.config.checkpoint, self.count
        if count.step < self.session.config.train.steps:  # a run that is complete is not resumed
            self.held.check()
        before = count.best, count.best_step
        if count.eval_step == count.done and count.eval["eval/pass@1"] >= (count.best or 0.0):
            count.best, count.best_step = count.eval["eval/pass@1"], count.done
        failure = self._write()
        if failure is None:
            self.session.checkpoint_saved(count.done)
            return
        count.best, count.best_step = before
        line = f"checkpoint-{count.done} could not be written ({failure}); those before it stay."
        if needed or config.on_error == "stop":
            raise UserError(line + " Mend that (make room) and continue with resume=auto.")
        self.session.say(line)

    def _write(self) -> str | None:
        """Write a checkpoint and remove old ones; returns why it could not be written, if so."""
        session, failure = self.session, ""
        processes = session.processes
        try:
            state = self.state_dict()
        except Exception as error:
            if processes.world_size > 1:  # the other ranks rely on what could not be written
                raise
            state, failure = {}, reason_of(error)
        weights = (
            session.policy.weights(keep=processes.is_main) if processes.shards_weights else None
        )

        def fill(folder: Path) -> None:
            write_model(session, folder, weights)
            (folder / "state").mkdir()
            for name, tree in state.items():
                save_tree(folder / "state" / name, tree)

        def write_all() -> str | None:
            if failure:
                return failure
            keep = session.config.checkpoint.keep
            try:
                write_checkpoint(session.run_folder.path, self.count.done, fill)
            except CheckpointError as error:
                return str(error)
            try:
                prune(session.run_folder.path, keep, self.count.best_step)
            except OSError as error:
                session.say(f"An old checkpoint could not be removed ({reason_of(error)}).")
            return None

        return processes.on_main(write_all)

    def state_dict(self) -> dict[str, State]:
        """The trees of `state/`, by file name."""
        session = self.session
        return {
            "counters": asdict(self.count),
            "forwards": {
                "layout": session.policy.layout,
                "chunked": session.policy.head is not None,
            },
            "updater": self.updater.state_dict(),
            "prompts": session.prompts.state_dict(),
            "schedule": session.schedule.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._stateful().items()},
            "anchor": session.parts.anchor.state_dict(),
            "rng": rng_state(session.policy.device),
            "lag": self.lag.state_dict(),
            "supply": session.collector.source.state_dict(),
            "engine": session.engine.state_dict(),
            # last: it may write, in the main process alone, and others must not wait for more
            "buffer": session.buffer.state_dict(),
        }

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; the policy's weights have been loaded from it already."""
        session = self.session
        files = (checkpoint / "state").glob("*.json")
        state = {path.stem: load_tree(path.with_suffix("")) for path in files}
        allowed = session.config.resume_force
        check_data(checkpoint, state["prompts"]["data"], session.prompts.data, allowed)
        self.count = load_counters(checkpoint)
        self.updater.load_state_dict(state["updater"])
        session.prompts.load_state_dict(state["prompts"])
        if state["supply"]:  # else the run only now begins to keep any
            session.collector.source.load_state_dict(state["supply"], session.prompts)
        session.engine.load_state_dict(state.get("engine", {}))
        session.buffer.load_state_dict(state["buffer"])
        session.schedule.load_state_dict(state["schedule"])
        for name, part in self._stateful().items():
            part.load_state_dict(state["parts"].get(name, {}))  # none if it is new and stateless
        session.parts.anchor.restore(session.policy, state["anchor"])
        for name, value in self.count.values.items():
            self.set_field(name, value)
        load_rng_state(state["rng"], session.policy.device)
        self.lag.load_state_dict(state["lag"], self.count.step + 1)

    def _stateful(self) -> dict[str, Part[Any]]:
        """Parts that keep their state like any other: the loss, the advantage, the rewards."""
        sections = self.session.sections
        named = {n: part for n, part in sections.items() if n not in ("buffer", "anchor")}
        rewards = self.session.collector.rewards.parts
        return named | {f"reward.{name}": reward for name, reward in rewards.items()}
