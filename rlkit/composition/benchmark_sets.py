"""What a run is evaluated on beside its own task: `eval.on`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlkit.config.run import EMBEDDED, EvalConfig, RunConfig
from rlkit.errors import UserError, suggest
from rlkit.evaluation.problems import ProblemSet, Target, load, of_task, targets
from rlkit.evaluation.questions import is_readable, prompts_of, reward_of
from rlkit.evaluation.templates import check_template, template_for
from rlkit.interfaces import ChatTemplate, Reward
from rlkit.registry import build, names
from rlkit.rewards.task import default_rewards
from rlkit.tasks.prompts import Prompts

WORDS = {"--on": "eval.on", "--template ": "eval.template=", "--limit": "eval.on_problems"}
"""Options of `rlkit eval`, and the settings that mean the same in a run."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    """A set of problems, read, with the rewards that mark the answers."""

    target: Target
    problems: ProblemSet
    rewards: Mapping[str, Reward]
    judge: str
    """The reward by which a response is right."""
    config: EvalConfig
    """How it is answered."""
    chat_template: ChatTemplate = "auto"
    """Of a task, whose prompts no template of a benchmark changes."""

    @property
    def name(self) -> str:
        """How its metrics begin."""
        return f"eval/{self.target.name}"

    @property
    def words(self) -> str:
        """What a run says of it."""
        p = self.problems
        return (
            f"Evaluation also on {p.name}: {len(p.rows)} problems of {p.source}, "
            f"{self.config.samples} sampled responses each, right by the reward '{self.judge}'."
        )

    def prompts(self, tokenizer: Any, template: str | None) -> Prompts:
        """The problems as the model reads them, with their lengths counted."""
        with settings_named():
            if not self.target.is_task:
                return prompts_of(self.problems, tokenizer, template_for(template, tokenizer))
            rows = self.problems.rows
            prompts = Prompts(self.problems.name, rows, tokenizer, self.chat_template)
            return prompts.within(2**31, "error")


def benchmark_sets(config: RunConfig) -> tuple[BenchmarkSet, ...]:
    """Read what `eval.on` names. Raises UserError for unknown names and unreadable files."""
    on = config.eval
    if on.template is not None:
        check_template(on.template, f"eval.template={on.template}: ")
    if not on.on:
        return ()
    with settings_named():
        found = targets(",".join(on.on), names("task"))
        for name in on.on_samples or ():
            known = [target.name for target in found]
            if name not in known:
                raise UserError(
                    f"eval.on_samples names {name}, which eval.on does not.{suggest(name, known)}"
                )
        return tuple(_read(target, config) for target in found)


def _read(target: Target, config: RunConfig) -> BenchmarkSet:
    on = config.eval
    samples = (on.on_samples or {}).get(target.name, on.samples)
    if target.is_task:
        task = build("task", target.name)
        problems = of_task(target, task.load(config.seed).eval, on.on_problems)
        rewards: dict[str, Reward[Any]] = default_rewards(task, target.name)
    else:
        task = None
        problems = load(target, on.data, on.key).first(on.on_problems)
        _check_readable(problems, config.model.name)
        rewards = {"math": reward_of(problems)}
    own = {
        "problems": len(problems.rows),
        "samples": samples,
        "k": tuple(k for k in on.ks if k <= samples),
    }
    return BenchmarkSet(
        target=target,
        problems=problems,
        rewards=rewards,
        judge=next(iter(rewards)),
        config=EvalConfig.model_validate({**on.model_dump(), **own}),
        chat_template="auto" if task is None else task.config.chat_template,
    )


def _check_readable(problems: ProblemSet, model: str) -> None:
    if model == EMBEDDED and not is_readable(problems):
        raise UserError(
            f"the embedded model cannot read {problems.name} of eval.on: it knows sums alone; set "
            "model.name to a Hugging Face name or folder"
        )


@contextmanager
def settings_named() -> Generator[None]:
    """Errors inside name settings of a run in place of options of `rlkit eval`."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for option, setting in WORDS.items():
            text = text.replace(option, setting)
        raise UserError(text) from error
