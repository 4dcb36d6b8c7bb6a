"""A run's environment: what it brings, where its turns are played, what it cannot be with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.config.run import RunConfig
from rlkit.distributed.processes import Processes
from rlkit.environments.on_main import OnMain
from rlkit.environments.rendering import template_notes
from rlkit.errors import UserError
from rlkit.interfaces import Environment, Reward, Task
from rlkit.registry import build
from rlkit.rewards.environment import HANDLES, EnvironmentReward
from rlkit.rewards.function import looks_at
from rlkit.rewards.task import default_rewards
from rlkit.rollout.around import around
from rlkit.rollout.base import RolloutEngine
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedEngine, SharedRemote
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.turns_built import built, remembering
from rlkit.runs.folder import CALLED_ONCE
from rlkit.tasks.encode import Tool
from rlkit.tasks.prompts import no_tools

if TYPE_CHECKING:
    from rlkit.composition.composition import Composition

ENVIRONMENT = "environment"
"""The config section, and the reward that the environment itself gives."""
COMPACT = "compact"
"""The format of calls without names."""
TOOLS = "tools"
"""The setting with functions that become tools."""


def environment_of(raw: Mapping[str, Any]) -> Environment[Any] | None:
    """The environment that a configuration names, if it names one."""
    node, tools = raw.get(ENVIRONMENT), raw.get(TOOLS) or ()
    if node is not None and (not isinstance(node, Mapping) or "name" not in node):
        raise UserError(
            f"{ENVIRONMENT} must be chosen by name: {ENVIRONMENT}=<name>; "
            f"`rlkit list {ENVIRONMENT}` lists them"
        )
    return built(node, tools)


def reads_environments(rewards: Mapping[str, Reward]) -> list[str]:
    """The rewards that are handed the environments, as TRL does."""
    return [name for name, reward in rewards.items() if looks_at(reward.itself, HANDLES)]


def asks_environment(rewards: Mapping[str, Reward]) -> bool:
    """Whether one of them is the environment's own."""
    return any(isinstance(reward.itself, EnvironmentReward) for reward in rewards.values())


def chosen_rewards(
    given: Mapping[str, Reward], task: Task[Any], name: str, environment: Environment[Any] | None
) -> Mapping[str, Reward]:
    """Those of a mix, or those given; if there are none, the environment's own, or the task's."""
    scores = environment is not None and environment.scores
    own: Mapping[str, Reward] = {ENVIRONMENT: build("reward", ENVIRONMENT)} if scores else {}
    return task.mix_rewards(given, own) or given or own or default_rewards(task, name)


def placed(
    engine: RolloutEngine[Any],
    raw: Mapping[str, Any],
    config: RunConfig,
    processes: Processes,
    environment: Environment[Any] | None,
    *,
    looked_at: bool = False,
) -> RolloutEngine[Any]:
    """The engine itself, or one in its own process if it generates while training runs.

    With multiple ranks, each gets its own. The environment is where the engine is: it plays the
    episodes of that rank or process. Rewards may look at it where it is in their own process. The
    main process plays all episodes that outlive a step.
    """
    if environment is not None and engine.config.oversample > 0:
        if processes.world_size == 1:
            return TurnsEngine(engine, environment, config.turns)
        shared = SharedEngine(engine, processes)
        return TurnsEngine(shared, OnMain(environment, processes), config.turns)
    if engine.config.mode == "sync":
        here = engine
        if environment is not None:
            here = TurnsEngine(engine, environment, config.turns, looked_at=looked_at)
        return around(here if processes.world_size == 1 else SharedEngine(here, processes))
    episodes = None
    if environment is not None:
        episodes = {key: raw[key] for key in (ENVIRONMENT, TOOLS, "turns") if key in raw}
        episodes["journals"] = list(map(str, journals(config)))
    name = raw["rollout"]["name"]
    remote = RemoteEngine(engine, name, config.model, config.plugins, episodes)
    return remote if processes.world_size == 1 else SharedRemote(remote, processes)


def check_turns(c: Composition) -> None:
    """Check that the run can have its environment, if it has one. Raises UserError."""
    environment = c.environment
    scores = environment is not None and environment.scores
    every = {**c.rewards, **c.eval_rewards}
    if asks_environment(every) and not scores:
        what = "the environment gives no reward" if environment else "there is no environment"
        raise UserError(
            f"reward=[{ENVIRONMENT}] is the environment's own, and {what}: leave it out"
        )
    if environment is None:
        return
    check_engine(c)
    partial = c.engine.config.oversample
    apart = c.engine.config.mode != "sync" or c.processes.world_size > 1
    for name in reads_environments(every) if apart or partial > 0 else ():
        where = "which are in other processes with this run: use rollout.mode=sync in one process"
        if not apart:
            where = "which have ended when a step takes their group: use rollout.oversample=0"
        raise UserError(
            f"reward '{name}' reads the environments themselves, {where}, or give the environment "
            "get_reward"
        )
    if c.benchmarks:
        raise UserError(
            f"eval.on={c.benchmarks[0].name.rpartition('/')[2]} is answered in one turn, and this "
            "run has an environment: leave eval.on out, and use `rlkit eval <checkpoint> --on ...`"
        )


def check_engine(c: Composition) -> None:
    """Check that the engine can play the episodes of an environment. Raises UserError."""
    engine, turns = c.engine.config, c.config.turns
    if not engine.continues:
        raise UserError(
            f"rollout={c.raw['rollout']['name']} samples a whole response at once, and an "
            "environment answers between turns: use rollout=hf, vllm or vllm_server"
        )
    limits = {"seconds": turns.seconds, "concurrency": turns.concurrency}
    for name, limit in limits.items() if engine.oversample > 0 else ():
        if limit is not None:
            raise UserError(
                f"turns.{name}={limit:g} is for episodes that a step plays from beginning to end, "
                f"and rollout.oversample={engine.oversample:g} lets them go on in the next: leave "
                "one out"
            )
    for key, off in (("draft", "none"), ("behavior", "policy")):
        if (value := getattr(engine, key)) != off:
            raise UserError(
                f"rollout.{key}={value} is for responses in one turn, and an environment answers "
                f"between turns: leave it at {off}"
            )


def remember(c: Composition) -> None:
    """Let the run's folder keep the calls that must not be made twice."""
    if c.environment is None:
        return
    c.environment.context = remembering(*journals(c.config))


def journals(config: RunConfig) -> list[Path]:
    """Where calls that must not be made twice are noted: first the run's own file.

    Then those of a run whose checkpoint it continues in a folder of its own.
    """
    folders = [Path(config.output_dir).absolute()]
    if config.resume not in ("never", "auto"):
        place = Path(config.resume).absolute()
        folders += [folder for folder in (place, place.parent) if folder not in folders]
    return [folder / CALLED_ONCE for folder in folders]


def check_problems(c: Composition, rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that the environment can take these problems, and its calls be read. Raises UserError.

    A call of the format `compact` names neither the tool nor its argument: there must be one.
    """
    if c.environment is None:
        return
    c.environment.check(rows)
    for index, row in enumerate(rows):
        asked = row.get("prompt")
        if asked and not isinstance(asked, str) and asked[-1].get("role") == "assistant":
            raise UserError(
                f"problem {index} ends with a message of the assistant, and an environment answers "
                "the policy's own: end the prompt with a user's message"
            )
    form = c.config.turns.call_format
    if COMPACT not in (form, c.environment.call_format) or form not in (COMPACT, "auto"):
        return
    for row in rows:
        tools = [schema["function"] for schema in c.environment.schemas(row)]
        if len(tools) != 1 or len(tools[0]["parameters"].get("properties", ())) != 1:
            names = ", ".join(tool["name"] for tool in tools) or "none"
            raise UserError(
                f"turns.call_format={COMPACT} needs one tool with one argument, and the tools are: "
                f"{names}; use another format, or the environment 'calculator'"
            )


def in_one_turn(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without its environment, for problems that are answered in one turn."""
    rewards = {k: v for k, v in (raw.get("reward") or {}).items() if k != ENVIRONMENT}
    return {k: v for k, v in raw.items() if k not in (ENVIRONMENT, TOOLS)} | {"reward": rewards}


def tools_of(c: Composition) -> Callable[[Mapping[str, Any]], Sequence[Tool]]:
    """The tools that the prompt of a row tells of."""
    return no_tools if c.environment is None else c.environment.schemas


def words_of(c: Composition) -> list[str]:
    """What the user is told of the environment at the start."""
    if c.environment is None:
        return []
    limits, name = c.config.turns, (c.raw.get(ENVIRONMENT) or {}).get("name", TOOLS)
    lines = [
        f"environment={name}: a response has at most {limits.max} turns, and with what the "
        f"environment says at most {c.engine.config.max_completion_length} tokens."
    ]
    if c.environment.scores and not asks_environment({**c.rewards, **c.eval_rewards}):
        lines.append(
            f"The environment's own reward is not used: add {ENVIRONMENT} to reward=[...] for that."
        )
    if limits.seconds is not None:
        lines.append(
            f"Warning: turns.seconds={limits.seconds:g} ends responses by the clock, and a run in "
            "which that happens cannot be repeated bit for bit."
        )
    return [*lines, *c.environment.notes()]


def template_words(c: Composition, tokenizer: Any) -> list[str]:
    """What the user is told of the chat template that several turns go through.

    Raises UserError for one that cannot write what the environment says.
    """
    if c.environment is None:
        return []
    of_rows = {bool(c.environment.schemas(row)) for row in c.rows[0]}  # a mix may have both
    found = [template_notes(tokenizer, tools=tools) for tools in sorted(of_rows, reverse=True)]
    return [f"{note[0].upper()}{note[1:]}." for note in dict.fromkeys(chain.from_iterable(found))]
