"""From a composed configuration to a running session.

Build every part, check that they fit, open the run's folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

import rlkit
from rlkit.collect import Collector
from rlkit.config import EMBEDDED, RunConfig
from rlkit.data import Prompts, PromptStream
from rlkit.errors import UserError, suggest
from rlkit.evaluate import Evaluator
from rlkit.folder import RunFolder
from rlkit.interfaces import Part, ReincarnationSchedule, ReplayBuffer, Reward, Task, Tracker
from rlkit.policy import Policy, load_policy, resolve_device
from rlkit.prepare import Parts
from rlkit.processes import ALONE, Processes
from rlkit.registry import build, build_section, import_plugin, validation_message
from rlkit.rewards.scoring import RewardSet
from rlkit.rewards.task import TaskReward
from rlkit.rollout.ahead import Ahead
from rlkit.rollout.base import RolloutEngine
from rlkit.rollout.partial import Partial
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedEngine, SharedRemote
from rlkit.rollout.supply import OnDemand, Supply
from rlkit.scalars import Scalar, is_scalar, scalar_of
from rlkit.trainer import Session

SINGLE = ("loss", "advantage", "buffer", "anchor", "schedule", "task", "rollout")
LISTS = ("correction", "reward", "tracker")
CONSOLE = "console"
SCHEDULED = ("loss", "correction", "advantage", "buffer", "anchor")
"""The kinds of parts whose numbers may be scalar schedules."""
RATES = ("learning_rate", "critic_learning_rate")

Raw = Mapping[str, Any]


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
    scalars: Mapping[str, Scalar]
    """Scalar schedules by the place they are written at ("anchor.beta")."""
    processes: Processes = ALONE

    def say(self, line: str) -> None:
        """Tell the user, from the first process."""
        if CONSOLE in self.trackers:
            self.trackers[CONSOLE].message(line)

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
        return named | {f"correction.{name}": part for name, part in parts.corrections}


def compose(raw: Raw, processes: Processes = ALONE) -> Composition:
    """Build and validate every part of a composed configuration.

    Of several processes the first alone has trackers. Raises UserError for whatever does not fit.
    """
    for plugin in raw.get("plugins") or ():
        import_plugin(plugin)
    scalars: dict[str, Scalar] = {}
    built = {kind: _build(kind, kind, raw.get(kind), scalars) for kind in SINGLE}
    lists = {
        kind: {
            label: _build(kind, f"{kind}.{label}", node, scalars)
            for label, node in (raw.get(kind) or {}).items()
        }
        for kind in LISTS
    }
    config = _run_config(raw, scalars)
    if "anchor.beta" not in {*scalars, *built["schedule"].fields()}:
        needs = (need for need in built["loss"].needs if need.startswith("anchor:"))
        built["anchor"].read_by_loss = frozenset(n.removeprefix("anchor:") for n in needs)
    trackers = {CONSOLE: build("tracker", CONSOLE)} | lists["tracker"]
    rewards = lists["reward"] or _default_rewards(built["task"], raw["task"]["name"])
    eval_task = build("task", config.eval.task) if config.eval.task else built["task"]
    composition = Composition(
        raw=raw,
        config=config,
        parts=Parts(
            loss=built["loss"],
            corrections=tuple(lists["correction"].items()),
            advantage=built["advantage"],
            anchor=built["anchor"],
        ),
        buffer=built["buffer"],
        schedule=built["schedule"],
        task=built["task"],
        eval_task=eval_task,
        engine=built["rollout"],
        rollouts=_placed(built["rollout"], raw, config, processes),
        rewards=rewards,
        eval_rewards=(
            _default_rewards(eval_task, config.eval.task)
            if config.eval.task and not lists["reward"]
            else rewards
        ),
        trackers=trackers if processes.is_first else {},
        scalars=scalars,
        processes=processes,
    )
    check(composition)
    return composition


def _build(kind: str, section: str, node: Any, scalars: dict[str, Scalar]) -> Any:
    """A part from its section; scalar schedules in it are noted, and legal at their extremes."""
    if not isinstance(node, Mapping) or "name" not in node:
        raise UserError(
            f"{section} must be chosen by name: {kind}=<name>; "
            f"`python -m rlkit list {kind}` lists them"
        )
    fields = {key: value for key, value in node.items() if key != "name"}
    found = {key: scalar_of(f"{section}.{key}", fields[key]) for key in _scheduled(kind, fields)}
    for key, scalar in found.items():
        for extreme in scalar.extremes():
            build_section(kind, node["name"], fields | _first(found) | {key: extreme}, section)
        scalars[f"{section}.{key}"] = scalar
    return build_section(kind, node["name"], fields | _first(found), section)


def _scheduled(kind: str, fields: Raw) -> list[str]:
    """The fields of a section that are scalar schedules."""
    return [key for key, value in fields.items() if kind in SCHEDULED and is_scalar(value)]


def _first(scalars: Mapping[str, Scalar]) -> dict[str, float]:
    return {key: scalar.extremes()[0] for key, scalar in scalars.items()}


def _run_config(raw: Raw, scalars: dict[str, Scalar]) -> RunConfig:
    """The run's own settings; its learning rates may be scalar schedules too."""
    rest = {key: value for key, value in raw.items() if key not in (*SINGLE, *LISTS)}
    train = dict(rest.get("train") or {})
    found = {
        key: scalar_of(f"train.{key}", train[key]) for key in RATES if is_scalar(train.get(key))
    }
    try:
        for key, scalar in found.items():
            for extreme in scalar.extremes():
                RunConfig.model_validate(rest | {"train": train | _first(found) | {key: extreme}})
            scalars[f"train.{key}"] = scalar
        return RunConfig.model_validate(rest | {"train": train | _first(found)})
    except ValidationError as error:
        raise UserError(validation_message(error, RunConfig)) from None


def _placed(
    engine: RolloutEngine[Any], raw: Raw, config: RunConfig, processes: Processes
) -> RolloutEngine[Any]:
    """The engine itself, or a process of its own for it where it generates while training runs.

    One for each where several processes train.
    """
    if engine.config.mode == "sync":
        return engine if processes.count == 1 else SharedEngine(engine, processes)
    remote = RemoteEngine(engine, raw["rollout"]["name"], config.model, config.plugins)
    return remote if processes.count == 1 else SharedRemote(remote, processes)


def _default_rewards(task: Task, name: str) -> dict[str, Reward]:
    if task.scores:
        return {name: TaskReward(task)}
    if not task.default_rewards:
        raise UserError(f"task={name} has no scorer of its own; choose one with reward=[<name>]")
    return {reward: build("reward", reward) for reward in task.default_rewards}


def check(c: Composition) -> None:
    """Whether the parts fit each other. Raises UserError with what to change."""
    smallest, n = c.parts.advantage.min_group, c.engine.config.num_generations
    if n < smallest:
        raise UserError(
            f"rollout.num_generations={n}, but this advantage compares {smallest} or more "
            f"responses a prompt; set rollout.num_generations to {smallest} or more"
        )
    offered = set(c.parts.anchor.weights(1))
    for need in c.parts.loss.needs:
        name = need.removeprefix("anchor:")
        if need.startswith("anchor:") and name not in offered:
            raise UserError(
                f"the loss needs the reference '{name}', which this anchor does not hold "
                f"(it holds: {', '.join(sorted(offered)) or 'none'}); choose another anchor"
            )
    if c.buffer.gives_expert and not c.parts.loss.accepts_expert:
        raise UserError(
            f"buffer={c.raw['buffer']['name']} adds demonstrations, whose behaviour log-probs are "
            f"unknown, and loss={c.raw['loss']['name']} cannot use them; choose a loss that can, "
            "such as luffy, chord or sft"
        )
    if c.config.model.name == EMBEDDED and not (c.task.embedded and c.eval_task.embedded):
        raise UserError(
            "the embedded model only knows task=arithmetic as it is by default; "
            "set model.name to a Hugging Face name or folder"
        )
    check_fields(c)
    check_mode(c)
    resolve_device(c.config.model.device)
    check_processes(c)


def check_processes(c: Composition) -> None:
    """Whether several processes can run this."""
    if c.processes.count > 1 and ":" in c.config.model.device:
        raise UserError(
            f"model.device={c.config.model.device} is one device, and there are "
            f"{c.processes.count} processes; leave it at auto, which gives each its own"
        )
    if c.processes.count > 1 and c.rollouts.placement == "alone":
        raise UserError(
            "this rollout engine works inside the training process, and here are "
            f"{c.processes.count}; use rollout=vllm_server, or train in one process"
        )
    if not c.processes.divides_weights:
        return
    for what, asked in (
        ("model.lora", c.config.model.lora.r > 0),
        ("an advantage with a critic", c.parts.advantage.needs_critic),
        ("rollout.sync_every above 1", c.engine.config.sync_every > 1),
        (f"rollout={c.raw['rollout']['name']}", c.engine.copies_model),
        ("model.autocast", c.config.model.autocast and c.processes.rules_precision),
        (
            "model.dtype=float16",
            c.config.model.dtype == "float16" and c.processes.rules_precision,
        ),
    ):
        if asked:
            raise UserError(
                f"{what} is not possible with processes launched like this; launch with "
                "configs/accelerate/ddp.yaml"
            )


def check_mode(c: Composition) -> None:
    """Whether a step's responses may be generated before it begins, where some are to be."""
    mode, oversample = c.engine.config.mode, c.engine.config.oversample
    if mode == "sync" and oversample == 0:
        return
    if type(c.buffer).plan is not ReplayBuffer.plan:
        early = f"rollout.mode={mode} generates earlier; use rollout.mode=sync"
        if mode == "sync":
            early = f"rollout.oversample={oversample} begins some earlier; use rollout.oversample=0"
        raise UserError(
            f"buffer={c.raw['buffer']['name']} plans a step's prompts by what it knows when the "
            f"step begins, and {early}, or a buffer that generates on new prompts"
        )
    if mode != "sync" and c.config.model.lora.r > 0:
        raise UserError(
            f"rollout.mode={mode} hands over all weights of the model, which model.lora does not "
            "train; use rollout.mode=sync with model.lora"
        )


def check_fields(c: Composition) -> None:
    """Whether the fields that the reincarnation schedule sets exist and may take its values."""
    configs: dict[str, BaseModel] = {name: part.config for name, part in c.sections.items()}
    known = [
        f"{name}.{key}" for name, config in configs.items() for key in type(config).model_fields
    ]
    configs["train"] = c.config.train
    known += [f"train.{key}" for key in RATES]
    for place, extremes in c.schedule.fields().items():
        if place not in known:
            raise UserError(
                f"the schedule sets {place}, but this run has no such field.{suggest(place, known)}"
            )
        if place in c.scalars:
            raise UserError(
                f"{place} follows a scalar schedule and is set by the reincarnation schedule too; "
                "choose one of them"
            )
        section, _, key = place.rpartition(".")
        for extreme in extremes:
            check_value(configs[section], section, key, extreme)


def check_value(config: BaseModel, section: str, key: str, value: float) -> None:
    """Whether a config may have this value in a field; whole numbers are rounded, as in a run."""
    number = round(value) if type(getattr(config, key)) is int else value
    try:
        type(config).model_validate({**config.model_dump(), key: number})
    except ValidationError as error:
        message = validation_message(error, type(config), f"{section}.")
        raise UserError(f"the schedule sets {section}.{key}, but {message}") from None


def describe(c: Composition) -> list[str]:
    """The run in words: its parts and its batch arithmetic."""
    train, rollout = c.config.train, c.engine.config
    n, groups = rollout.num_generations, train.prompts_per_step
    fresh = c.buffer.fresh_share(groups)
    names = {kind: c.raw[kind]["name"] for kind in SINGLE}
    names |= {kind: "+".join(c.raw[kind]) for kind in LISTS if c.raw.get(kind)}
    lines = [
        "  ".join(f"{kind}={name}" for kind, name in names.items()),
        f"A step trains {groups} groups of {n} = {groups * n} responses, {fresh} of them fresh "
        f"({fresh * n} generated)"
        + (f" and up to {groups - fresh} replayed." if fresh < groups else ".")
        if not c.buffer.gives_expert
        else f"A step trains {groups} groups, {fresh} of them with new responses (at most {n} "
        "generated for each), and demonstrations.",
        f"It makes {train.updates_per_batch} x {train.minibatches} = "
        f"{train.updates_per_batch * train.minibatches} optimiser steps "
        f"on {groups // train.minibatches} groups each; {train.steps} steps in all.",
    ]
    wanted = c.parts.loss.advantages
    if wanted and names["advantage"] not in wanted:
        lines.append(
            f"Warning: loss={names['loss']} has a baseline of its own and is defined with "
            f"advantage={' or '.join(wanted)}, not with advantage={names['advantage']}."
        )
    for place, scalar in c.scalars.items():
        settings = scalar.model_dump()
        shape = settings.pop("kind")
        words = ", ".join(f"{key}={value}" for key, value in settings.items())
        lines.append(f"{place} follows a schedule: {shape} ({words}).")
    if rollout.truncates:
        lines.append(
            f"Warning: top_p={rollout.top_p}, top_k={rollout.top_k} samples from a truncated "
            "policy, but log-probs and ratios are the whole policy's; "
            "the kept mass is stored with each token, untreated bias remains."
        )
    return lines


def components(c: Composition) -> dict[str, Any]:
    """Where each part comes from.

    For each: import path, version of its distribution, hash of its source, settings.
    """
    rows: list[tuple[str, Part[Any]]] = [
        *((kind, part) for kind, part in c.sections.items()),
        ("schedule", c.schedule),
        ("task", c.task),
        ("rollout", c.engine),
        *((f"reward.{name}", part) for name, part in c.rewards.items()),
        *((f"tracker.{name}", part) for name, part in c.trackers.items()),
    ]
    owners = importlib.metadata.packages_distributions()
    out = {}
    for section, part in rows:
        cls = type(part)
        source = Path(inspect.getsourcefile(cls) or "")
        kind, _, label = section.partition(".")
        out[section] = {
            "name": label or c.raw[kind]["name"],
            "import_path": f"{cls.__module__}:{cls.__qualname__}",
            "version": _version(cls.__module__.partition(".")[0], owners),
            "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "config": part.config.model_dump(mode="json"),
        }
    return out


def _version(package: str, owners: Mapping[str, Sequence[str]]) -> str | None:
    """The distribution a top-level package belongs to, with its version."""
    if package in owners:
        name = owners[package][0]
        return f"{name} {importlib.metadata.version(name)}"
    home = Path(rlkit.__file__).parent.parent
    return f"rlkit-rft {rlkit.__version__}" if (home / package).is_dir() else None


def load_prompts(c: Composition, policy: Policy) -> tuple[Prompts, Prompts]:
    """Training and evaluation prompts.

    They are checked against max_prompt_length unless the task is the embedded model's.
    """
    data = c.task.load(c.config.seed)
    other = data if c.eval_task is c.task else c.eval_task.load(c.config.seed)
    held_out = other.eval[: c.config.eval.problems]
    return _prompts(c, "train", c.task, data.train, policy), _prompts(
        c, "eval", c.eval_task, held_out, policy
    )


def _prompts(
    c: Composition, name: str, task: Task, rows: Sequence[Mapping[str, Any]], policy: Policy
) -> Prompts:
    if not len(rows):
        raise UserError(f"the task has no {name} problems")
    prompts = Prompts(name, rows, policy.tokenizer)
    if task.embedded:
        return prompts
    return prompts.within(c.engine.config.max_prompt_length, task.config.overlong)


def supply(c: Composition) -> Supply:
    """Where a step's responses come from."""
    greedy = c.parts.advantage.needs_greedy
    if isinstance(c.rollouts, RemoteEngine | SharedRemote):
        return Ahead(c.rollouts, greedy=greedy)
    if c.engine.config.oversample > 0:
        return Partial(c.rollouts, greedy=greedy)
    return OnDemand(c.rollouts, greedy=greedy)


def close(c: Composition) -> None:
    """Release the engine and the rewards' workers."""
    c.rollouts.close()
    for reward in {id(r): r for r in (*c.rewards.values(), *c.eval_rewards.values())}.values():
        reward.close()


def model_folder(c: Composition) -> str:
    """The name or folder of the model; the embedded one is made on first use."""
    if c.config.model.name != EMBEDDED:
        return c.config.model.name
    from rlkit.embedded import embedded_model_dir

    return str(embedded_model_dir(c.config.model.base_seed))


def open_session(c: Composition, checkpoint: Path | None, policy: Policy | None = None) -> Session:
    """Load the model and the data, and hand everything to the loop.

    The model comes from the checkpoint where there is one; a later stage brings its policy.
    """
    config, temperature, processes = c.config, c.engine.config.temperature, c.processes
    torch.manual_seed(config.seed)
    if policy is None:
        lora = config.model.lora.r > 0
        folder = checkpoint if checkpoint and not lora else processes.first(lambda: model_folder(c))
        policy = load_policy(config.model, folder, temperature, checkpoint if lora else None)
        policy.share(processes)
    policy.temperature = temperature
    train, held_out = load_prompts(c, policy)
    rewards = RewardSet(c.rewards, processes)
    c.buffer.seed = config.seed
    c.buffer.folder = Path(config.output_dir) / "buffer"
    c.buffer.kept_states = config.checkpoint.keep + 2
    c.buffer.writes = processes.is_first
    c.rollouts.start(policy, config.seed)
    return Session(
        config=config,
        policy=policy,
        parts=c.parts,
        buffer=c.buffer,
        schedule=c.schedule,
        engine=c.rollouts,
        collector=Collector(supply(c), rewards, c.parts.advantage, policy.tokenizer),
        prompts=PromptStream(
            train,
            config.seed,
            c.engine.config.num_generations,
            c.engine.config.max_completion_length,
        ),
        evaluator=Evaluator(
            held_out,
            RewardSet(c.eval_rewards, processes),
            c.rollouts,
            policy.tokenizer,
            config.eval,
        ),
        folder=RunFolder(Path(config.output_dir), writes=processes.is_first),
        trackers=c.trackers,
        sections=c.sections,
        scalars=c.scalars,
        processes=processes,
    )
