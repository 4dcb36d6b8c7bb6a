"""From a composed configuration to the parts of a run, built and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rlkit.composition.benchmark_sets import benchmark_sets
from rlkit.composition.checks import check
from rlkit.composition.composition import CONSOLE, RATES, Composition, Given, Raw
from rlkit.composition.reward_checks import check_rewards
from rlkit.composition.turns import chosen_rewards, environment_of, placed, reads_environments
from rlkit.config.run import RunConfig
from rlkit.config.scalars import Scalar, is_scalar, scalar_of
from rlkit.config.validation import validation_message
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import Environment, ReplayBuffer, Reward, RunContext, Task
from rlkit.plugin_parts import load_plugin, register_from_plugins
from rlkit.plugins import LIST_KINDS, OPTIONAL_KINDS, SINGLE_KINDS
from rlkit.registry import build, build_section
from rlkit.rewards.limits import multipliers_of
from rlkit.rollout.turns_built import names_in
from rlkit.training.references import Parts

SCHEDULED = ("loss", "correction", "advantage", "buffer", "anchor")
"""The kinds of parts whose numeric settings may be scalar schedules; of a reward, its weight."""

NOTHING = Given()


def compose(raw: Raw, processes: Processes = SINGLE, given: Given = NOTHING) -> Composition:
    """Build and validate every part of a composed configuration.

    Only the main process has trackers. Raises UserError if anything does not fit.
    """
    _register_parts(raw)
    scalars: dict[str, Scalar] = {}
    built = {kind: _build(kind, kind, raw.get(kind), scalars) for kind in SINGLE_KINDS}
    lists = {
        kind: {
            label: _build(kind, f"{kind}.{label}", node, scalars)
            for label, node in (raw.get(kind) or {}).items()
        }
        for kind in LIST_KINDS
    }
    environment = environment_of(raw)
    config = _run_config(raw, scalars)
    trackers = {CONSOLE: build("tracker", CONSOLE)} | lists["tracker"]
    chosen, task, other = lists["reward"], built["task"], config.eval.task
    eval_task = build("task", other) if other else task
    rewards: Mapping[str, Reward] = {}
    eval_rewards = rewards
    if chosen or not needs_no_reward(task, built["buffer"], config):
        rewards, eval_rewards = rewards_for(task, raw["task"]["name"], chosen, environment)
    if other:
        _, eval_rewards = rewards_for(eval_task, other, chosen, environment)
    scalars |= multipliers_of(rewards)
    looked_at = bool(reads_environments({**rewards, **eval_rewards}))
    composition = Composition(
        raw=raw,
        config=config,
        parts=Parts(
            loss=built["loss"],
            corrections=tuple(lists["correction"].items()),
            advantage=built["advantage"],
            anchor=built["anchor"],
            rewards=rewards,
            reads=config.train.reads,
        ),
        buffer=built["buffer"],
        schedule=built["schedule"],
        task=task,
        eval_task=eval_task,
        engine=built["rollout"],
        rollouts=placed(built["rollout"], raw, config, processes, environment, looked_at=looked_at),
        rewards=rewards,
        eval_rewards=eval_rewards,
        benchmarks=benchmark_sets(config),
        trackers=trackers if processes.is_main else {},
        scalars=scalars,
        processes=processes,
        given=given,
        environment=environment,
    )
    _check_and_open(composition)
    return composition


def _check_and_open(composition: Composition) -> None:
    check_rewards(composition)
    check(composition)
    longest = composition.engine.config.max_completion_length
    context = RunContext(seed=composition.config.seed, max_completion_length=longest)
    for reward in composition.every_reward:
        reward.open(context)


def needs_no_reward(task: Task, buffer: ReplayBuffer, config: RunConfig) -> bool:
    """Whether the task's preferences say what is better, and nothing is generated to score."""
    return task.compares and buffer.fresh_share(config.train.prompts_per_step) == 0


def rewards_for(
    task: Task[Any],
    name: str,
    chosen: Mapping[str, Reward],
    environment: Environment[Any] | None,
) -> tuple[Mapping[str, Reward], Mapping[str, Reward]]:
    """The rewards that training calls, and those of an evaluation; the same mapping if equal."""
    kept = {n: reward for n, reward in chosen.items() if not reward.config.evaluation_only}
    every = chosen_rewards(kept, task, name, environment)
    training = {n: reward for n, reward in every.items() if not reward.config.evaluation_only}
    if len(kept) < len(chosen):
        every = chosen_rewards(chosen, task, name, environment)
    only = {n: reward for n, reward in every.items() if reward.config.evaluation_only}
    return training, {**training, **only} if only else training


def _register_parts(raw: Raw) -> None:
    """Import the plugins, and register the parts in them that the configuration names."""
    plugins = raw.get("plugins") or ()
    for plugin in plugins:
        load_plugin(plugin)
    nodes = [(kind, raw.get(kind)) for kind in (*SINGLE_KINDS, *OPTIONAL_KINDS)]
    nodes += [(kind, node) for kind in LIST_KINDS for node in (raw.get(kind) or {}).values()]
    for kind, node in nodes if plugins else ():
        for name in names_in(node):
            register_from_plugins(kind, name, plugins)


def _build(kind: str, section: str, node: Any, scalars: dict[str, Scalar]) -> Any:
    """Build a part from its section; note its scalar schedules and check their extremes."""
    if not isinstance(node, Mapping) or "name" not in node:
        raise UserError(
            f"{section} must be chosen by name: {kind}=<name>; `rlkit list {kind}` lists them"
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
    able = fields if kind in SCHEDULED else ("weight",) if kind == "reward" else ()
    return [key for key in able if is_scalar(fields.get(key))]


def _first(scalars: Mapping[str, Scalar]) -> dict[str, float]:
    return {key: scalar.extremes()[0] for key, scalar in scalars.items()}


def _run_config(raw: Raw, scalars: dict[str, Scalar]) -> RunConfig:
    """The run's own settings; its learning rates may be scalar schedules too."""
    parts = (*SINGLE_KINDS, *OPTIONAL_KINDS, *LIST_KINDS)
    rest = {key: value for key, value in raw.items() if key not in parts}
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
