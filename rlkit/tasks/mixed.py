"""Several tasks in one run, each with problems, rewards and an evaluation of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any, overload

from rlkit.errors import UserError, known_names, suggest
from rlkit.interfaces import TASK, Reward, Task, TaskConfig, TaskData
from rlkit.registry import build_section, entry, register
from rlkit.rewards.on_tasks import OnTasks
from rlkit.rewards.task import default_rewards
from rlkit.tasks.identity import DIGITS, Hashed, row_hash

Row = Mapping[str, Any]
Rows = Sequence[Row]
EXAMPLE = "task.parts={math: {kind: jsonl, path: train.jsonl}, sums: {kind: reasoning_gym}}"
NAME = re.compile(r"[A-Za-z_][\w-]*")
TAKEN = ("reward", "source", "mean", "std", "errors", "timeouts", "lost")
"""Names that would be read as other metrics in reward/<name> or eval/<name>."""
SHARED = tuple(TaskConfig.model_fields)
"""Settings that hold for the whole mix."""
SELF = KIND, WEIGHT, REWARD = "kind", "weight", "reward"
"""What a part says besides its task's settings."""


class MixedConfig(TaskConfig):
    """The tasks of a mix."""

    parts: dict[str, dict[str, Any]] | None = None
    """Name -> a task: its `kind` (jsonl, reasoning_gym, ...) and settings; the `weight` of its
    prompts among those of all, 1 if left out, 0 = only evaluated; and a list of rewards, `reward`,
    if it has others than a run of the task alone would have: names, or {kind: name, weight: 0.5}.
    `chat_template` and `overlong` hold for all of them."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A task of a mix."""

    name: str
    kind: str
    task: Task[Any]
    weight: float
    rewards: Mapping[str, Reward] | None
    """Those chosen for it; None = the run's, or the task's own."""
    columns: set[str] = field(default_factory=lambda: {TASK})
    """The columns of its rows, known once they are read."""

    def read(self, load: Callable[[], Any]) -> Any:
        """What `load` returns; its errors name the settings where they stand."""
        keys = "|".join(map(re.escape, type(self.task.config).model_fields))
        try:
            return load()
        except UserError as error:
            text = re.sub(rf"\btask\.(?={keys})", f"task.parts.{self.name}.", str(error))
            raise UserError(f"{self.name}: {text}") from error

    def checked(self, rows: Rows) -> Rows:
        """The rows, of which the columns are noted. Raises UserError for a column `task`."""
        for row in rows[:1] if isinstance(rows, Hashed) else rows:
            self.columns.update(map(str, row))
            if TASK in row:
                raise UserError(
                    f"{self.name}: the data has a column '{TASK}', by which a mix says which of "
                    "its tasks a row is of; rename it"
                )
        return rows


class MixedRows(Sequence[Row]):
    """Rows of several tasks, each with the column `task`."""

    def __init__(self, rows: Mapping[str, Rows], order: Sequence[tuple[str, int]]) -> None:
        self.rows = rows
        self.order = order
        """The task of each row, and its place there."""

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> MixedRows: ...
    def __getitem__(self, index: int | slice) -> Row | MixedRows:
        if isinstance(index, slice):
            return MixedRows(self.rows, self.order[index])
        name, place = self.order[index]
        return {**self.rows[name][place], TASK: name}

    @cached_property
    def row_hashes(self) -> Sequence[str]:
        """One per row: equal rows of two tasks have different ones."""
        known = {n: rows.row_hashes for n, rows in self.rows.items() if isinstance(rows, Hashed)}
        return [
            _hash_of(f"{name}/{known[name][place]}") if name in known else row_hash(self[i])
            for i, (name, place) in enumerate(self.order)
        ]


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def one_by_one(rows: Mapping[str, Rows]) -> MixedRows:
    """The first row of each task, the second of each, and so on: any beginning is fair to all."""
    lists = [[(name, i) for i in range(len(each))] for name, each in rows.items()]
    return MixedRows(rows, [p for p in chain.from_iterable(zip_longest(*lists)) if p is not None])


def end_to_end(rows: Mapping[str, Rows]) -> MixedRows:
    """All rows of the first task, then all of the second, and so on."""
    return MixedRows(rows, [(name, i) for name, each in rows.items() for i in range(len(each))])


@register("task", "mixed")
class Mixed(Task[MixedConfig]):
    """Several tasks by name, of which each has a share of the prompts.

    Per epoch of as many prompts as there are training problems, a task of weight w has its share
    w / sum of weights of them, rounded up or down, and the tasks take turns evenly. Each goes
    through its own problems in orders of its own: one that is through begins again, however far the
    others are. Held-out problems alternate, whatever the weights, so that the first n have as many
    of each task. Rows have a further column, `task`.

    A response gets the rewards of its task: its `reward` list, or those the run chose, or the
    task's own. They are called with its rows alone and are named `<task>/<reward>`.
    """

    def __init__(self, config: MixedConfig | None = None) -> None:
        super().__init__(config)
        self.members = [self._member(*item) for item in (self.config.parts or {}).items()]
        if self.members and not any(member.weight for member in self.members):
            raise UserError(
                "task.parts: every weight is 0, so there is nothing to train on; give one task a "
                "weight above 0"
            )

    def require(self) -> None:
        """What each task needs."""
        for member in self.members:
            member.task.require()

    @property
    def embedded(self) -> bool:
        """Whether all of its tasks are those of one embedded model."""
        tasks = [member.task for member in self.members]
        return all(task.embedded for task in tasks) and len({task.base for task in tasks}) == 1

    @property
    def base(self) -> str:
        """That of its tasks, if they share one."""
        return self.members[0].task.base if self.members else super().base

    @property
    def mix(self) -> Mapping[str, float]:
        """The weight of each task."""
        return {member.name: member.weight for member in self.members}

    def load(self, seed: int) -> TaskData:
        """The problems of all. Raises UserError if there is no task, or one cannot be read."""
        train: dict[str, Rows] = {}
        held_out: dict[str, Rows] = {}
        for member in self._some():
            data: TaskData = member.read(lambda task=member.task: task.load(seed))  # type: ignore[misc]
            held_out[member.name] = member.checked(data.eval)
            if member.weight > 0:
                train[member.name] = member.checked(data.train)
        for name, rows in (*train.items(), *held_out.items()):
            if not len(rows):
                raise UserError(f"{name}: the task has no problems")
        return TaskData(train=end_to_end(train), eval=one_by_one(held_out))

    def all_problems(self, seed: int) -> Rows:
        """Every problem of each, in turns."""
        found = {
            member.name: member.checked(
                member.read(lambda task=member.task: task.all_problems(seed))  # type: ignore[misc]
            )
            for member in self._some()
        }
        return one_by_one(found)

    def mix_rewards(
        self, chosen: Mapping[str, Reward], fallback: Mapping[str, Reward]
    ) -> Mapping[str, Reward]:
        """The rewards of all; a task's own are the `fallback`, such as an environment's, if any.

        Raises UserError for chosen ones that no task would take.
        """
        takers = [member for member in self._some() if member.rewards is None]
        if chosen and not takers:
            raise UserError(
                f"reward=[{','.join(chosen)}] is of no use: each task of the mix has a reward list "
                "of its own; leave one of them out"
            )
        for name in self.mix:
            if name in chosen:
                raise UserError(
                    f"a task of the mix and a reward are both called '{name}', and both would be "
                    f"logged as reward/{name}/mean; rename the task in task.parts"
                )
        out = dict(chosen)
        if len(takers) < len(self.members):
            out = {name: _on(takers, name, reward) for name, reward in chosen.items()}
        for member in self.members:
            own = member.rewards
            if own is None:
                own = {} if chosen else fallback or default_rewards(member.task, member.kind)
            for label, reward in own.items():
                name = f"{member.name}/{label}"
                out[name] = _on([member], name, reward)
        return out

    def _some(self) -> Sequence[Member]:
        if not self.members:
            raise UserError(f"task=mixed has no tasks yet; name some: '{EXAMPLE}'")
        return self.members

    def _member(self, name: str, given: Mapping[str, Any]) -> Member:
        place = f"task.parts.{name}"
        _check_name(name)
        if KIND not in given:
            raise UserError(f"{place} needs the kind of its task, such as {place}.kind=jsonl")
        own = self.config.model_dump(include={*SHARED})
        settings = {key: v for key, v in given.items() if key not in SELF}
        for key in SHARED:
            if settings.get(key, own[key]) != own[key]:
                raise UserError(
                    f"{place}.{key}={settings[key]}, but all tasks of a mix are put to the model "
                    f"in one way, task.{key}={own[key]}; set task.{key}"
                )
        if given[KIND] == "mixed":
            raise UserError(f"{place} is a mix itself; name its tasks in task.parts")
        found = entry("task", str(given[KIND]))
        known = [*SELF, *found.config.model_fields]
        for key in settings:
            if key not in known:
                listed = known_names(key, known, f"`rlkit show task {found.name}`")
                raise UserError(f"unknown key {place}.{key}.{suggest(key, known)} {listed}")
        task: Task[Any] = build_section("task", found.name, {**own, **settings}, place)
        return Member(
            name=name,
            kind=found.name,
            task=task,
            weight=_weight(place, given.get(WEIGHT, 1)),
            rewards=_rewards(place, given[REWARD]) if given.get(REWARD) is not None else None,
        )


def _on(members: Sequence[Member], name: str, reward: Reward) -> OnTasks:
    return OnTasks(reward, name, {m.name: m.columns for m in members})


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name in TAKEN:
        raise UserError(
            f"task.parts.{name}: '{name}' cannot name a task of a mix; use a word of letters, "
            f"digits, _ and -, and none of {', '.join(TAKEN)}"
        )


def _weight(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise UserError(f"{place}.weight={value} is not valid: give a number of 0 or more")
    return float(value)


def _rewards(place: str, given: Any) -> dict[str, Reward]:
    """The rewards of a list of names, or of settings with a kind."""
    items = given if isinstance(given, list | tuple) else [given]
    out: dict[str, Reward] = {}
    for item in items:
        settings = {KIND: item} if isinstance(item, str) else item
        if not isinstance(settings, Mapping) or KIND not in settings:
            raise UserError(
                f"{place}.reward={given} is not valid: write a list of names, [math, overlong], or "
                "of settings with a kind, [{kind: overlong, weight: 0.5}]"
            )
        found = entry("reward", str(settings[KIND]))
        rest = {key: value for key, value in settings.items() if key != KIND}
        out[found.name] = build_section("reward", found.name, rest, f"{place}.reward")
    if not out:
        raise UserError(f"{place}.reward is empty; name a reward, or leave it out")
    return out
