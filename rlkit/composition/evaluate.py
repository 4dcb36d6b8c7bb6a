"""The evaluation of a model or a checkpoint: `rlkit eval`."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition, Raw
from rlkit.composition.config_files import configs_folder, search_path
from rlkit.composition.data_checks import check_room
from rlkit.composition.evaluators import contest_of
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.composition.model_path import check_exists
from rlkit.composition.ranking import rank, ranked_run
from rlkit.composition.rehearsal import Rows, check_references, check_rows, try_rewards
from rlkit.composition.saved import EPISODES, choices, same_problems, saved_config, with_saved
from rlkit.composition.session import RunScope, close, told_policy
from rlkit.composition.turns import tools_of
from rlkit.config.overrides import key_of, quoted
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.evaluation.evaluator import Evaluation, Evaluator
from rlkit.evaluation.figures import OFTEN, TRUNCATED
from rlkit.evaluation.progress import bar
from rlkit.evaluation.records import write_answers
from rlkit.evaluation.table import lines_of
from rlkit.models.numerics import numerics
from rlkit.models.policy import Policy
from rlkit.rewards.scoring import NONE_CHOSEN, RewardSet
from rlkit.runs.checkpoint import newest_in
from rlkit.runs.generators import seed_generators
from rlkit.stored.files import write_whole
from rlkit.tasks.prompts import Prompts

FIGURES, ANSWERS = "results.json", "answers.parquet"
"""What an evaluation leaves in its folder."""


@dataclass(frozen=True, kw_only=True)
class Problems:
    """What an evaluation asks."""

    prompts: Prompts
    of: int
    """How many problems there are."""
    held_out: bool
    """Whether a run trained on the others of the same task."""

    @property
    def words(self) -> str:
        """How many of how many: "256 of 1319 problems"."""
        kind = "held-out problems" if self.held_out else "problems"
        return f"{len(self.prompts)} of {self.of} {kind}"


def configuration(
    model: str, overrides: Sequence[str], config_dir: str | None = None, *, on_task: bool = True
) -> tuple[dict[str, Any], Raw | None]:
    """The composed configuration of an evaluation, and that of the run the model is from.

    The run's own settings are the defaults, except for its task if the evaluation is not on a task.
    Raises UserError for a path without a model, and without a task to evaluate on.
    """
    check_exists(model)
    name = newest_in(model)
    if not (on_task or chooses_task(overrides)):
        overrides = ["task=arithmetic", *overrides]
    saved = saved_config(name, overrides)
    given = [f"model.name={quoted(name)}", "output_dir=.", *overrides]
    chosen = choices(saved, overrides) if saved is not None else []
    arguments = [*search_path(config_dir), *import_before_compose([*chosen, *given])]
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        composed = hydra_compose("config", overrides=arguments)
        raw: Any = OmegaConf.to_container(composed, resolve=True)
    if saved is not None:
        raw = with_saved(raw, saved, overrides, episodes=on_task)
    elif name != EMBEDDED and not chooses_task(overrides):
        raise UserError(
            f"say what to evaluate {model} on: task=jsonl task.path=FILE with prompts and answers, "
            "another task (`rlkit list task`), or named benchmarks: --on math500"
        )
    return raw, saved


def chooses_task(overrides: Sequence[str]) -> bool:
    """Whether an override says what to evaluate on."""
    return bool({*map(key_of, overrides)} & {"task", "eval.task", "experiment"})


def rows_of(c: Composition, *, held_out: bool) -> Rows:
    """The problems to evaluate on: all that the task has, or those that a run holds out.

    Raises UserError if there are none, or for one that is not usable or that no reward can score.
    """
    task, seed = c.eval_task, c.config.seed
    rows = task.load(seed).eval if held_out else task.all_problems(seed)
    if not len(rows):
        raise UserError("the task has no problems to evaluate on")
    check_rows("eval", task, rows[: c.config.eval.problems])
    check_references(c, rows[: c.config.eval.problems])
    try_rewards(c, task, c.eval_rewards, rows)
    return rows


def problems_of(c: Composition, policy: Policy, rows: Rows, *, held_out: bool) -> Problems:
    """The first of the rows as prompts. Raises UserError for one that the model cannot take."""
    task = c.eval_task
    chosen = rows[: c.config.eval.problems]
    mode = task.config.chat_template
    prompts = Prompts("eval", chosen, policy.tokenizer, mode, tools_of(c))
    if not task.embedded:
        prompts = prompts.within(c.engine.config.max_prompt_length, task.config.overlong)
        check_room(prompts, policy, c.longest_evaluated)
    return Problems(prompts=prompts, of=len(rows), held_out=held_out)


def evaluated(
    c: Composition, *, held_out: bool, say: Callable[[str], None], console: Console | None = None
) -> tuple[Evaluation, Problems]:
    """Load the model of a composition and evaluate it."""
    quiet = Console(file=sys.stderr, force_terminal=False) if console is None else console
    if not c.eval_rewards:
        raise UserError(NONE_CHOSEN)
    c.engine.require()
    rows = rows_of(c, held_out=held_out)
    seed_generators(c.config.seed)
    with numerics(c.config.model):
        policy = told_policy(c, RunScope.of(c), None, None)
        problems = problems_of(c, policy, rows, held_out=held_out)
        c.rollouts.reserve(problems.prompts.longest, c.longest_evaluated)
        c.rollouts.start(policy, c.config.seed)
        evaluator = Evaluator(
            prompts=problems.prompts,
            rewards=RewardSet(c.eval_rewards),
            engine=c.rollouts,
            tokenizer=policy.tokenizer,
            config=c.config.eval,
            judges=c.judges,
            contest=contest_of(c, policy.tokenizer, rows[: c.config.eval.problems]),
        )
        for line in problems.prompts.description():
            say(line)
        say(f"Evaluating on {problems.words}; {asked(c)}")
        with bar(quiet) as progress:
            return evaluator.evaluate(0, progress), problems


def asked(c: Composition) -> str:
    """How the problems are answered and marked, in words."""
    config, own = c.config.eval, c.config.eval.sampling.given
    used = c.engine.config.model_copy(update=own)
    once = " and one greedily" if config.greedy else ""
    return (
        f"{config.samples} sampled{once}, at temperature {used.temperature:g}, top_p "
        f"{used.top_p:g}, top_k {used.top_k}, at most {used.max_completion_length} tokens. A "
        f"response is right if the reward {c.judges.words} gives it 1."
    )


def evaluate(
    model: str, overrides: Sequence[str], config_dir: str | None, out: str | None
) -> dict[str, float]:
    """Evaluate, tell the user on stderr, and leave figures and answers in a folder."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, markup=False)

    raw, saved = configuration(model, overrides, config_dir)
    folder = Path(out) if out is not None else default_folder(model)
    if (pairs := ranked_run(raw, saved)) is not None:
        metrics, count = rank(pairs, Path(newest_in(model)), say)
        write_figures(folder, {"preferences": count, "metrics": metrics}, raw)
        for name, value in metrics.items():
            say(f"{name.removeprefix('eval/')}  {value:.3f}")
        say(f"Figures: {folder}")
        return metrics
    c = compose(raw)
    try:
        found, problems = evaluated(c, held_out=same_problems(raw, saved), say=say, console=console)
    finally:
        close(c)
    save(folder, found, problems, raw)
    if found.failed:
        say(found.failed)
    for line in lines_of(found.figures):
        say(line)
    for warning in filter(None, (found.warning, cut_off(found))):
        say(warning)
    say(f"Answers and figures: {folder}")
    return figures_of(found)


def cut_off(found: Evaluation) -> str | None:
    """A line if many responses ended because they were full."""
    share = found.figures[TRUNCATED].value
    if share <= OFTEN:
        return None
    return (
        f"Warning: {100 * share:.0f} % of the responses were cut off; raise "
        "eval.sampling.max_completion_length."
    )


def figures_of(found: Evaluation) -> dict[str, float]:
    """The metrics of an evaluation, with the interval of each score."""
    out = found.metrics
    for scope, figures in found.scopes.items():
        for name, estimate in figures.items():
            if f"{scope}/{name}_error" in out:
                out[f"{scope}/{name}_low"] = estimate.low
                out[f"{scope}/{name}_high"] = estimate.high
    return out


def default_folder(model: str) -> Path:
    """`evals/<model>-<time>`, named after the last parts of the model's name."""
    path = Path(newest_in(model))
    parts = path.parts[-2:] if path.name.startswith("checkpoint-") else path.parts[-1:]
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts)).strip("-.") or "model"
    return Path("evals") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def save(folder: Path, found: Evaluation, problems: Problems, raw: Raw) -> None:
    """Write the figures, and the answers to as many problems as eval.answers says."""
    limit = raw["eval"]["answers"]
    if limit != 0:
        write_answers(folder / ANSWERS, found.sampled[:limit], found.greedy[:limit])
    about = {
        "problems": len(problems.prompts),
        "of": problems.of,
        "held_out": problems.held_out,
        "right_by": found.judges.by_task or found.judges.default,
        "metrics": figures_of(found),
    }
    write_figures(folder, about, raw)


def write_figures(folder: Path, about: Mapping[str, Any], raw: Raw) -> None:
    """Write what was found, and the sections that say how, to results.json."""
    kept = ("model", "task", "reward", *EPISODES, "rollout", "eval", "seed")
    told = {**about, "config": {key: raw[key] for key in kept if key in raw}}
    write_whole(folder / FIGURES, json.dumps(told, indent=1, default=str) + "\n")
