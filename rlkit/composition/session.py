"""From a composition to a session: the model, the data and the engine are loaded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlkit.composition.composition import Composition
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.interfaces import Task
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.ahead import Ahead
from rlkit.rollout.partial import Partial
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedRemote
from rlkit.rollout.source import OnDemand, Supply
from rlkit.runs.folder import RunFolder
from rlkit.tasks.prompts import Prompts, PromptStream
from rlkit.training.collect import Collector
from rlkit.training.evaluate import Evaluator
from rlkit.training.state import Session


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
    from rlkit.models.embedded import embedded_model_dir

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
