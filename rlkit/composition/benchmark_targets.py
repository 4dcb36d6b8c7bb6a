"""What `rlkit eval --on` asks: each target with its problems, prompts and rewards."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlkit.composition.benchmark_plan import Plan
from rlkit.composition.composition import Composition
from rlkit.composition.marking import marking
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.evaluation.examination import Protocol
from rlkit.evaluation.problems import ProblemSet, Target, load, of_task
from rlkit.evaluation.questions import is_readable, prompts_of, reward_of
from rlkit.evaluation.templates import template_for
from rlkit.interfaces import Reward, Task
from rlkit.models.policy import Policy
from rlkit.registry import build
from rlkit.rewards.task import default_rewards
from rlkit.tasks.identity import fingerprint
from rlkit.tasks.prompts import Prompts

AS_GIVEN = "of the task"
"""What the template of a task is called."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A target with its problems, ready to be answered."""

    target: Target
    problems: ProblemSet
    prompts: Prompts
    template: str
    rewards: Mapping[str, Reward]
    judge: str
    protocol: Protocol

    @property
    def settings(self) -> dict[str, Any]:
        """How it is answered and marked, as results tell it."""
        return {
            **fingerprint(self.prompts.ids),
            "template": self.template,
            "reward": self.judge,
            "samples": self.protocol.samples,
        }

    @property
    def must_agree(self) -> dict[str, Any]:
        """What its saved samples and their marks depend on, besides what all depend on."""
        return self.settings | marking(self.rewards)


def problems_of(target: Target, c: Composition, plan: Plan) -> ProblemSet:
    """The problems of a target, and no more than asked for."""
    if not target.is_task:
        return load(target, plan.options.data, plan.key).first(plan.options.limit)
    return of_task(target, task_of(target, c).load(c.config.seed).eval, plan.options.limit)


def task_of(target: Target, c: Composition) -> Task:
    """A task by name: the configured one with its settings, or any other with its defaults."""
    return c.task if c.raw["task"]["name"] == target.name else build("task", target.name)


def put(
    target: Target, problems: ProblemSet, policy: Policy, c: Composition, plan: Plan
) -> tuple[Prompts, str]:
    """A target's prompts and their template. Raises UserError for what the model cannot read."""
    tokenizer = policy.tokenizer
    if target.is_task:
        task = task_of(target, c)
        prompts = Prompts(target.name, problems.rows, tokenizer, task.config.chat_template)
        prompts, template = prompts.within(sys.maxsize, "error"), AS_GIVEN
    else:
        embedded = c.config.model.name == EMBEDDED
        if embedded:
            check_readable(problems)
        template = "none" if embedded else template_for(plan.template, tokenizer)
        prompts = prompts_of(problems, tokenizer, template)
    return prompts, template


def marked(
    target: Target,
    problems: ProblemSet,
    prompts: Prompts,
    template: str,
    c: Composition,
    plan: Plan,
) -> Asked:
    """A target ready to be answered and marked: by the reward that marks correctness."""
    protocol = plan.protocol(target)
    rewards = rewards_of(target, problems, c)
    judge = c.judges.default if rewards is c.eval_rewards else next(iter(rewards))
    return Asked(
        target=target,
        problems=problems,
        prompts=prompts,
        template=template,
        rewards=rewards,
        judge=judge,
        protocol=protocol,
    )


def rewards_of(target: Target, problems: ProblemSet, c: Composition) -> Mapping[str, Reward]:
    """A task has its own; benchmarks and files have `math`, files those chosen if there are any."""
    if target.is_task:
        return default_rewards(task_of(target, c), target.name)
    if target.benchmark is None and c.raw.get("reward"):
        return c.eval_rewards
    own: dict[str, Reward[Any]] = {"math": reward_of(problems)}
    return own


def check_readable(problems: ProblemSet) -> None:
    """Raise UserError unless the embedded model can read the problems."""
    if not is_readable(problems):
        raise UserError(
            f"the embedded model cannot read {problems.name}: it knows sums alone (--on "
            "arithmetic); give the name or folder of a language model"
        )
