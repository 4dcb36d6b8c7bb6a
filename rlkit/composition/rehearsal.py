"""What can be found out about the data and the rewards before the model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlkit.batch import PolicyTerms
from rlkit.composition.base_model import check_base
from rlkit.composition.composition import Composition
from rlkit.composition.scoring import check_scorer
from rlkit.composition.turns import check_problems
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.evaluation.contest import responses_of
from rlkit.interfaces import TASK, FileRow, Reward, StoredData, Task
from rlkit.models.embedded import CHARACTERS
from rlkit.models.lora import require_peft
from rlkit.ops import CHOSEN, PROMPT, REJECTED
from rlkit.rewards.environment import COLUMN, HANDLES
from rlkit.rewards.function import looks_at
from rlkit.rewards.on_tasks import OnTasks
from rlkit.rewards.scoring import FINISH_REASONS, check_columns, score_all, wants_messages
from rlkit.rewards.task import TaskReward
from rlkit.stored.read import StoredRollouts
from rlkit.tasks.jsonl import FileTask
from rlkit.tasks.mixed import Mixed
from rlkit.tasks.prompts import check_row
from rlkit.tasks.read import is_local
from rlkit.testing.losses import examples
from rlkit.training.held_state import is_ours

Rows = Sequence[Mapping[str, Any]]
LOOKED_AT = 64
"""Rows that are searched for columns the first one lacks."""


def rehearse(c: Composition, *, dry: bool = False) -> None:
    """Read the rows, and let every reward score an empty answer to the first one.

    A dry run reads none of the hub, loads no model for a reward and asks no service for one. Raises
    UserError for a row without a usable prompt, and for a reward that cannot be called, raises, or
    returns anything but a finite number or None.
    """
    check_machine(c)
    check_base(c)
    try_loss(c)
    if dry and (name := hub_name(c.task) or hub_name(c.eval_task)) is not None:
        check_buffer(c, ())
        c.say(f"A dry run downloads nothing: the problems of {name} are not checked.")
        return
    train, held_out = c.rows
    check_problems(c, train)
    check_problems(c, held_out)
    for name, task, rows in (("train", c.task, train), ("eval", c.eval_task, held_out)):
        check_rows(name, task, rows)
        if c.config.model.name == EMBEDDED and task.compares:
            check_readable(name, rows)
    check_buffer(c, Placed("train", c.task, train))
    check_references(c, held_out)
    try_rewards(c, c.task, affordable(c.rewards, dry=dry), train)
    only_evaluated = 0 in c.eval_task.mix.values()
    if c.eval_rewards is not c.rewards or c.eval_task is not c.task or only_evaluated:
        try_rewards(c, c.eval_task, affordable(c.eval_rewards, dry=dry), held_out)


def affordable(rewards: Mapping[str, Reward], *, dry: bool) -> dict[str, Reward]:
    """The rewards that are called; a dry run makes no costly call."""
    return {name: each for name, each in rewards.items() if not (dry and each.itself.costly)}


def hub_name(task: Task) -> str | None:
    """The first data set of a task that is not on this machine, if there is one."""
    if isinstance(task, Mixed):
        return next(filter(None, (hub_name(member.task) for member in task.members)), None)
    paths = task.paths.values() if isinstance(task, FileTask) else ()
    return next((path for each in paths for path in each if not is_local(path)), None)


def check_machine(c: Composition) -> None:
    """Raise UserError for what the parts or the adapters need and this machine lacks."""

    def require() -> None:
        if c.config.model.lora.r > 0:
            require_peft()
        for part in (*c.every_part.values(), c.eval_task, *c.every_reward):
            getattr(part, "itself", part).require()

    c.processes.on_main(require)  # trackers are on the main process alone


def check_buffer(c: Composition, task_rows: Iterable[FileRow]) -> None:
    """Check what the buffer reads: its files, or the task's rows. Raises UserError."""
    try:
        c.buffer.check_rows(c.try_file, task_rows)
        for data in c.buffer.stored_data:
            check_logps(c, data)
    except UserError as error:
        raise UserError(f"buffer={c.raw['buffer']['name']}: {error}") from None


def check_logps(c: Composition, data: StoredData) -> None:
    """Raise UserError if a part reads behavior log-probs that stored rollouts do not have."""
    rollouts = StoredRollouts(data.place, processes=c.processes)
    if data.score_with is not None:
        check_scorer(c, data.score_with)
    elif rollouts.unknown_logp and c.parts.needs("behavior"):
        asked = c.config.train.lr_ess is not None
        reader = "train.lr_ess" if asked else "this composition"
        other = "set train.lr_ess=null" if asked else "use a loss that needs none (rlkit list loss)"
        raise UserError(
            f"{rollouts.path} has responses without behavior log-probs, which {reader} reads; "
            f"compute them: buffer.score_with=base or another model, or {other}"
        )


def try_loss(c: Composition) -> None:
    """Let a user's loss see an example batch. Raises UserError for terms of a wrong shape.

    A loss may read what only a real batch has, by a key; that it fails here is told, and the first
    step says whether it works.
    """
    loss = c.parts.loss
    if is_ours(type(loss)):
        return
    logp, batch = examples(loss.needs)
    terms = PolicyTerms(logp=logp.requires_grad_(), entropy=torch.full_like(logp, 0.7))
    try:
        out = loss.checked(terms, batch)
        if out.terms and not any(term.value.requires_grad for term in out.terms):
            raise UserError(
                f"loss {type(loss).__name__} has no gradient: compute its terms from policy.logp, "
                "without detach() or no_grad()"
            )
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(error, UserError) and not isinstance(cause, KeyError):
            raise
        c.say(
            f"Warning: the loss fails on an example batch ({type(cause).__name__}: {cause}); the "
            "first step will show whether it fails on a real one."
        )


def check_rows(name: str, task: Task, rows: Rows) -> None:
    """Check that each row has a prompt; of an embedded task, which makes them, only the first."""
    for row in Placed(name, task, rows):
        check_row(row.place, row.columns)


@dataclass(frozen=True)
class Placed:
    """The rows of a set with their places; of an embedded task only the first."""

    name: str
    task: Task
    rows: Rows

    def __iter__(self) -> Iterator[FileRow]:
        for index in range(1 if self.task.embedded else len(self.rows)):
            place = f"problem {index} of the {self.name} set"
            yield FileRow(number=index + 1, place=place, columns=self.rows[index])


def check_references(c: Composition, rows: Rows) -> None:
    """Raise UserError if a row to evaluate on has no response to compare with, if it needs one."""
    if (source := c.config.eval.against.responses) is not None:
        responses_of(source, rows)


def check_readable(name: str, rows: Rows) -> None:
    """Check that the embedded model has a token for every character of some preferences."""
    known = {*CHARACTERS}
    for index, row in enumerate(rows):
        if unknown := {*"".join(str(row[key]) for key in (PROMPT, CHOSEN, REJECTED))} - known:
            raise UserError(
                f"the embedded model cannot read problem {index} of the {name} set: it knows sums "
                f"alone, and no {min(unknown)!r}; set model.name to a Hugging Face name or folder"
            )


def try_rewards(c: Composition, task: Task, rewards: Mapping[str, Reward], rows: Rows) -> None:
    """Call fresh copies of the rewards, so that one which counts its calls does not count this."""
    if not rewards:
        return
    copies = {name: copied(reward) for name, reward in rewards.items()}
    try:
        for name, reward in copies.items():
            reward.open(rewards[name].context)
        for first in firsts(task, rows):
            c.processes.on_main(lambda rows=first: score_nothing(c, copies, rows))  # type: ignore[misc]
    finally:
        for reward in copies.values():
            reward.close()


def firsts(task: Task, rows: Rows) -> list[Rows]:
    """The rows; those of a mix as the first rows of each task that has any."""
    if not task.mix:
        return [rows]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        mine = found.setdefault(row[TASK], [])
        if len(mine) < LOOKED_AT:
            mine.append(row)
    return list(found.values())


def copied(reward: Reward) -> Reward:
    """A reward of the same settings, as a run builds it."""
    if isinstance(reward, OnTasks):
        return reward.over(copied(reward.itself))
    return (
        TaskReward(reward.task) if isinstance(reward, TaskReward) else type(reward)(reward.config)
    )


def score_nothing(c: Composition, rewards: Mapping[str, Reward], rows: Rows) -> None:
    """Score an empty answer to the first row.

    A text prompt becomes a chat if the model has a chat template, which is unknown until it is
    loaded: then a reward may work in either form.
    """
    first = rows[0]
    names = {name for row in rows[:LOOKED_AT] for name in row} - {"prompt"}
    check_columns(names)
    given = {name: [first.get(name)] for name in sorted(names)}
    given |= {"completion_ids": [[]], FINISH_REASONS: ["stop"]}
    prompt, answer = first["prompt"], [{"role": "assistant", "content": ""}]
    if c.environment is not None:
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        able = {name: each for name, each in rewards.items() if not looks_at(each.itself, HANDLES)}
        if able:
            given[COLUMN] = [0.0 if c.environment.scores else None]
            score_all(able, [chat], [answer], given)
        return
    if not isinstance(prompt, str):
        score_all(rewards, [prompt], [answer], given)
        return
    try:
        score_all(rewards, [prompt], [""], given)
    except UserError as error:
        if c.config.model.name == EMBEDDED or not wants_messages(error):
            raise
        score_all(rewards, [[{"role": "user", "content": prompt}]], [answer], given)
