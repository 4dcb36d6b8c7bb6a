"""`python -m rlkit eval MODEL --on ...`: a model on named benchmarks, files and tasks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.composition.benchmark_plan import Plan, settings_of
from rlkit.composition.compose import compose, default_rewards
from rlkit.composition.composition import CONSOLE, Composition
from rlkit.composition.session import RunScope, close, told_policy
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.evaluation.examination import Examiner, Protocol, can_compare, outcomes
from rlkit.evaluation.figures import TRUNCATED, Values, check_ks, usual_ks, values_of
from rlkit.evaluation.problems import ProblemSet, Target, load
from rlkit.evaluation.questions import check_room, prompts_of, reward_of, room
from rlkit.evaluation.results import Result, results_of
from rlkit.evaluation.score_table import print_table
from rlkit.evaluation.store import BENCHMARKS, Store
from rlkit.evaluation.templates import template_for
from rlkit.evaluation.weights import weights_of
from rlkit.interfaces import Reward
from rlkit.models.embedded import CHARACTERS
from rlkit.models.numerics import numerics
from rlkit.models.policy import Policy
from rlkit.pages.evaluation import write_page
from rlkit.registry import build
from rlkit.rewards.scoring import RewardSet
from rlkit.runs.checkpoint import seed_generators
from rlkit.tasks.identity import fingerprint
from rlkit.tasks.prompts import Prompts

OFTEN = 0.1
"""A share of truncated responses that is warned of."""
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
        """What its samples depend on, besides what all depend on."""
        return {
            **fingerprint(self.prompts.ids),
            "template": self.template,
            "reward": self.judge,
            "samples": self.protocol.samples,
        }


def evaluate_on(raw: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Evaluate the model of a configuration, print the table, and return the results.

    Its samples and results are written to the plan's folder. Raises UserError for what cannot be
    read, answered or written.
    """
    at_once = {"mode": "sync", "sync_every": 1, "oversample": 0.0}
    c = compose({**raw, "rollout": {**raw["rollout"], **at_once}})
    asked: list[Asked] = []
    try:
        with numerics(c.config.model):
            seed_generators(c.config.seed)
            sets = [problems_of(target, c, plan) for target in plan.targets]
            policy = told_policy(c, RunScope.of(c, say=c.say), None, None)
            prompts = [put(*each, policy, c, plan) for each in zip(plan.targets, sets, strict=True)]
            plan = plan.fitting(min(room(p, policy) for p, _ in prompts))
            for target, problems, (ready, template) in zip(
                plan.targets, sets, prompts, strict=True
            ):
                check_room(ready, policy, plan.max_tokens)
                asked.append(marked(target, problems, ready, template, c, plan))
            return answered(asked, policy, c, plan)
    finally:
        for reward in (reward for each in asked for reward in each.rewards.values()):
            reward.close()
        close(c)


def problems_of(target: Target, c: Composition, plan: Plan) -> ProblemSet:
    """The problems of a target, and no more than asked for."""
    if not target.is_task:
        return load(target, plan.options.data, plan.key).first(plan.options.limit)
    rows = task_of(target, c).load(c.config.seed).eval
    limit = plan.options.limit
    return ProblemSet(
        name=target.name, title=target.name, rows=rows[:limit], source=f"task={target.name}"
    )


def task_of(target: Target, c: Composition) -> Any:
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
    if plan.options.k:
        check_ks(plan.options.k, protocol.samples)
    rewards = rewards_of(target, problems, c)
    judge = c.correctness if rewards is c.eval_rewards else next(iter(rewards))
    assert judge is not None
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
    """Raise UserError unless the embedded model has a token for every character."""
    if not all({*str(row["prompt"])} <= {*CHARACTERS} for row in problems.rows):
        raise UserError(
            f"the embedded model cannot read {problems.name}: it knows sums alone (--on "
            "arithmetic); give the name or folder of a language model"
        )


def answered(asked: Sequence[Asked], policy: Policy, c: Composition, plan: Plan) -> dict[str, Any]:
    """Answer what is not answered yet, then compute, write and print the results."""
    model = c.config.model.name
    settings = settings_of(plan, c.raw, model, weights_of(model))
    store = Store(plan.folder(settings))
    store.agree(settings | {BENCHMARKS: {each.target.name: each.settings for each in asked}})
    for note in (note for each in asked for note in each.problems.notes):
        c.say(note)
    if plan.suite:
        c.say(plan.suite.origin)
    c.say(f"Results: {store.folder}")
    start_engine(asked, policy, c, plan)
    chunks = [examiner(each, policy, c).complete(*work(each), store) for each in asked]
    found = [result(each, store, n, c, plan) for each, n in zip(asked, chunks, strict=True)]
    name = plan.suite.name if plan.suite else None
    results = results_of(found, settings, name, c.config.seed)
    written = store.write_results(results)
    page = write_page(
        store, results, {e.target.name: n for e, n in zip(asked, chunks, strict=True)}
    )
    print_table(results)
    for warning in (line for each in found for line in warnings(each)):
        c.say(warning)
    c.say(f"{written}  {page}")
    return results


def start_engine(asked: Sequence[Asked], policy: Policy, c: Composition, plan: Plan) -> None:
    """Start the engine, with room for the longest prompt and response."""
    c.rollouts.reserve(max(each.prompts.longest for each in asked), plan.max_tokens)
    c.rollouts.start(policy, c.config.seed)


def examiner(each: Asked, policy: Policy, c: Composition) -> Examiner:
    """Who answers a target's problems."""
    return Examiner(
        engine=c.rollouts,
        tokenizer=policy.tokenizer,
        rewards=RewardSet(each.rewards),
        judge=each.judge,
        tell=c.trackers[CONSOLE].progress,
    )


def work(each: Asked) -> tuple[ProblemSet, Prompts, Protocol]:
    """What there is to answer."""
    return each.problems, each.prompts, each.protocol


def result(each: Asked, store: Store, chunks: int, c: Composition, plan: Plan) -> Result:
    """What the saved samples of a target say."""
    rows = store.read(each.target.name, chunks)
    samples = each.protocol.samples
    compared = can_compare(each.rewards[each.judge])
    values: Values = values_of(
        outcomes(rows, greedy=False, compared=compared),
        outcomes(rows, greedy=True, compared=False),
        plan.options.k or usual_ks(samples),
        c.config.seed,
    )
    benchmark = each.target.benchmark
    return Result(
        name=each.target.name,
        title=each.problems.title,
        source=each.problems.source,
        flaws=benchmark.flaws if benchmark else "",
        notes=each.problems.notes,
        settings=each.settings,
        values=values,
    )


def warnings(result: Result) -> list[str]:
    """What makes a score doubtful, a line each."""
    lines, problems = [], len(result.values[TRUNCATED])
    cut = sum(result.values[TRUNCATED]) / problems
    if cut > OFTEN:
        lines.append(
            f"{result.name}: {100 * cut:.0f} % of the responses were cut off; raise --max-tokens"
        )
    scores = [v for name, v in result.values.items() if name == "greedy" or "@" in name]
    if not any(map(any, scores)):
        lines.append(
            f"{result.name}: no response is right, by the reward '{result.settings['reward']}'; "
            "look at the responses on the page before you believe it"
        )
    return lines
