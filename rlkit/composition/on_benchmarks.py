"""`rlkit eval MODEL --on ...`: a model on named benchmarks, files and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from rlkit.composition.benchmark_plan import Plan, settings_of
from rlkit.composition.benchmark_targets import Asked, marked, problems_of, put
from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.session import RunScope, close, told_policy
from rlkit.composition.turns import in_one_turn
from rlkit.evaluation.answers import failures
from rlkit.evaluation.examination import Examiner, can_compare, outcomes
from rlkit.evaluation.figures import OFTEN, TRUNCATED, Values, usual_ks, values_of
from rlkit.evaluation.progress import bar
from rlkit.evaluation.questions import check_room, room
from rlkit.evaluation.results import Result, results_of
from rlkit.evaluation.score_table import print_table
from rlkit.evaluation.store import BENCHMARKS, Store
from rlkit.evaluation.templates import STOPS
from rlkit.evaluation.weights import weights_of
from rlkit.models.numerics import numerics
from rlkit.models.policy import Policy
from rlkit.pages.evaluation import write_page
from rlkit.rewards.scoring import RewardSet
from rlkit.runs.generators import seed_generators

Progress = Callable[[str, int, int], None]


def evaluate_on(raw: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Evaluate the model of a configuration, print the table, and return the results.

    Samples and results are written to the plan's folder; what happens is told on stderr. Raises
    UserError for what cannot be read, answered or written.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    raw = in_one_turn(raw)
    c = compose({**raw, "rollout": {**raw["rollout"], **for_answers(raw["rollout"], plan)}})
    asked: list[Asked] = []
    try:
        with numerics(c.config.model):
            seed_generators(c.config.seed)
            sets = [problems_of(target, c, plan) for target in plan.targets]
            policy = told_policy(c, RunScope.of(c, say=console.print), None, None)
            prompts = [put(*each, policy, c, plan) for each in zip(plan.targets, sets, strict=True)]
            plan = plan.fitting(min(room(each, policy) for each, _ in prompts))
            for target, problems, (ready, template) in zip(
                plan.targets, sets, prompts, strict=True
            ):
                check_room(ready, policy, plan.max_tokens)
                asked.append(marked(target, problems, ready, template, c, plan))
            return answered(asked, policy, c, plan, console)
    finally:
        for reward in (reward for each in asked for reward in each.rewards.values()):
            reward.close()
        close(c)


def for_answers(rollout: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Settings of the engine: it answers when it is asked, and stops where the template says."""
    stops = (*(rollout.get("stop") or ()), *STOPS.get(plan.template or "", ()))
    own = {"mode": "sync", "sync_every": 1, "oversample": 0.0}
    return own | {"stop": list(dict.fromkeys(stops))}


def answered(
    asked: Sequence[Asked], policy: Policy, c: Composition, plan: Plan, console: Console
) -> dict[str, Any]:
    """Answer what is not answered yet, then compute, write and print the results."""
    model = c.config.model.name
    settings = settings_of(plan, c.raw, model, weights_of(model))
    store = Store(plan.folder(settings))
    store.agree(settings | {BENCHMARKS: {each.target.name: each.must_agree for each in asked}})
    for line in introduction(asked, plan, store):
        console.print(line)
    c.rollouts.reserve(max(each.prompts.longest for each in asked), plan.max_tokens)
    c.rollouts.start(policy, c.config.seed)
    with bar(console) as progress:
        chunks = [
            examiner(each, policy, c, progress).complete(
                each.problems, each.prompts, each.protocol, store
            )
            for each in asked
        ]
    found = [result(each, store, n, c, plan) for each, n in zip(asked, chunks, strict=True)]
    results = results_of(found, settings, plan.options.suite, c.config.seed)
    written = store.write_results(results)
    names = [each.target.name for each in asked]
    page = write_page(store, results, dict(zip(names, chunks, strict=True)))
    for line in filter(None, map(failed, found)):
        console.print(line)
    print_table(results)
    for line in (line for each in found for line in warnings(each)):
        console.print(line)
    console.print(f"{written}  {page}")
    return results


def introduction(asked: Sequence[Asked], plan: Plan, store: Store) -> list[str]:
    """What the user should know before it begins, a line each."""
    notes = [note for each in asked for note in each.problems.notes]
    settings = "  ".join(f"{key}={value}" for key, value in plan.sampling.given.items())
    about = [plan.suite.origin] if plan.suite else []
    return [*notes, *about, f"Sampling: {settings}", f"Answers and figures: {store.folder}"]


def examiner(each: Asked, policy: Policy, c: Composition, progress: Progress) -> Examiner:
    """Who answers a target's problems."""
    return Examiner(
        engine=c.rollouts,
        tokenizer=policy.tokenizer,
        rewards=RewardSet(each.rewards),
        judge=each.judge,
        tell=progress,
    )


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
        counts=store.counts(each.target.name, chunks),
        responses=len(rows),
    )


def failed(result: Result) -> str | None:
    """A line if rewards failed over some of the responses."""
    told = failures(result.counts, result.responses)
    return told and f"{result.name}: {told}; to have them marked again, choose another --out"


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
