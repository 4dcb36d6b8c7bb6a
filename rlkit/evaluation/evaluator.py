"""Evaluation on a fixed set of problems: figures over their answers, and the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from rlkit.batch import Prompt, Request
from rlkit.config.run import EvalConfig
from rlkit.evaluation.answers import NO_ANSWERS, Answered, Answers, answer, failures
from rlkit.evaluation.contest import WIN_RATE, Contest
from rlkit.evaluation.figures import (
    GREEDY,
    LENGTH,
    REFLECTION,
    TRUNCATED,
    Figures,
    Outcome,
    Values,
    figures,
    values_of,
)
from rlkit.evaluation.reflection import reflects
from rlkit.interfaces import TASK
from rlkit.rewards.inputs import completion_text
from rlkit.rewards.judges import Judges
from rlkit.rewards.math.grouping import final_answer
from rlkit.rewards.math.reward import Math
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import EVALUATION, GenerationCall, RolloutEngine
from rlkit.tasks.identity import data_source

Progress = Callable[[str, int, int], None]
"""Told a task, how many problems are done, and of how many."""
Keep = Callable[[int, Sequence[Answered], Sequence[Answered]], None]
"""Takes a step, and the sampled and the greedy answers of its evaluation."""
LOGGED = {LENGTH: "mean_length", TRUNCATED: "truncated", REFLECTION: "reflection_rate"}
"""What figures are called among the metrics, where that is not their name."""
REWARD = "reward"


def silent(task: str, done: int, of: int) -> None:
    """Tell nobody how far an evaluation is."""


def keep_none(step: int, sampled: Sequence[Answered], greedy: Sequence[Answered]) -> None:
    """Keep no answers."""


def outcome(answered: Answered, classes: Sequence[int | None] | None = None) -> Outcome:
    """What became of a problem's samples; `classes` says which gave the same answer."""
    return Outcome(
        right=answered.right,
        lengths=answered.lengths,
        truncated=[reason == "length" for reason in answered.finish_reasons],
        reflects=[reflects(text) for text in answered.texts],
        classes=classes,
    )


def reward_values(sampled: Sequence[Answered]) -> Values:
    """The mean reward of each problem's samples, and of each single one, where any applies."""
    found: Values = {}
    for answered in sampled:
        parts = {f"{REWARD}/{name}/mean": each for name, each in answered.components.items()}
        for name, each in {REWARD: answered.totals, **parts}.items():
            applied = [value for value in each if value is not None]
            found.setdefault(name, []).extend([sum(applied) / len(applied)] if applied else [])
    return {name: values for name, values in found.items() if values}


def of_task(answers: Sequence[Answered], task: str) -> list[Answered]:
    """The answers to problems of one task of a mix."""
    return [each for each in answers if each.prompt.columns.get(TASK) == task]


def by_source(sampled: Sequence[Answered]) -> Values:
    """The share of right responses to each problem, by where the problem is from."""
    found: Values = {}
    for answered in sampled:
        if (source := data_source(answered.prompt)) is not None:
            share = sum(answered.right) / len(answered.right)
            found.setdefault(f"source/{source}/pass@1", []).append(share)
    return found


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    name: str
    judges: Judges
    """The rewards by which a response is right."""
    sampled: Sequence[Answered]
    greedy: Sequence[Answered]
    """Empty if nothing was answered greedily."""
    figures: Figures
    """By name, without "eval/"."""
    by_task: Mapping[str, Figures] = field(default_factory=dict)
    """The same of each task of a mix."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How often rewards failed over the answers, by what happened."""

    @property
    def scopes(self) -> dict[str, Figures]:
        """All figures by how their metrics begin: `eval`, and `eval/<task>` in a mix."""
        each = {f"{self.name}/{task}": found for task, found in self.by_task.items()}
        return {self.name: self.figures, **each}

    @property
    def metrics(self) -> dict[str, float]:
        """Each figure as `<name>/<figure>`, and the standard errors of what is a score.

        What happened to rewards is `<name>/<event>`, if anything did.
        """
        out = {f"{self.name}/{event}": float(n) for event, n in self.counts.items() if n}
        for scope, every in self.scopes.items():
            for figure, found in every.items():
                key = f"{scope}/{LOGGED.get(figure, figure)}"
                out[key] = found.value
                if figure in (GREEDY, WIN_RATE) or figure.startswith(("pass@", "maj@")):
                    out[f"{key}_error"] = found.error
        return out

    @property
    def failed(self) -> str | None:
        """A line if rewards failed over some of the answers."""
        told = failures(
            self.counts, sum(len(each.texts) for each in chain(self.sampled, self.greedy))
        )
        return told and f"Warning: {told}."

    @property
    def warning(self) -> str | None:
        """A line if no response got full marks, so that every score is 0."""
        every = list(chain(self.sampled, self.greedy))
        if any(any(answered.right) for answered in every):
            return None
        values = [
            value
            for answered in every
            for value in answered.components[self.judges.of(answered.prompt.columns)]
            if value is not None
        ]
        most = f"{max(values):g}" if values else "nothing: it applied to none"
        line = (
            f"Warning: {self.name}/pass@1 counts a response as right if the reward "
            f"{self.judges.words} gives it 1, and no response got that (the most was {most}). Look "
            "at the answers"
        )
        if self.name != EVALUATION:
            return f"{line}."
        return f"{line}; if right ones get less, choose another reward with eval.reward=<name>."


class Evaluates(Protocol):
    """One of a run's evaluations."""

    def run(self, step: int, progress: Progress = silent) -> dict[str, float]:
        """The metrics of an evaluation after a step."""
        ...


@dataclass(frozen=True)
class Evaluators:
    """Several evaluations, one after the other."""

    each: Sequence[Evaluates]
    notes: Sequence[str] = ()
    """What the user should know of them before the first step."""

    def run(self, step: int, progress: Progress = silent) -> dict[str, float]:
        """The metrics of all."""
        found: dict[str, float] = {}
        for evaluator in self.each:
            found |= evaluator.run(step, progress)
        return found


@dataclass(kw_only=True)
class Evaluator:
    """Answers a fixed set of problems and says how many answers are right.

    A response is right if its judge, by default the first reward, gives it 1 or more.
    """

    prompts: Sequence[Prompt]
    rewards: RewardSet
    engine: RolloutEngine[Any]
    tokenizer: Any
    config: EvalConfig
    judges: Judges | None = None
    name: str = EVALUATION
    """How its metrics begin."""
    contest: Contest | None = None
    """Compares the sampled responses with reference responses."""
    keep: Keep = keep_none
    """Takes the answers."""
    say: Callable[[str], None] = lambda line: None
    """Tells the user."""
    warned: bool = field(default=False, init=False)

    def run(self, step: int, progress: Progress = silent) -> dict[str, float]:
        """The metrics of an evaluation after a step; its answers are kept."""
        found = self.evaluate(step, progress)
        self.keep(step, found.sampled, found.greedy)
        if (warning := found.warning) and not self.warned:
            self.warned = True
            self.say(warning)
        return found.metrics

    def evaluate(self, step: int, progress: Progress = silent) -> Evaluation:
        """Answer every problem. The same step and weights give the same answers."""
        words = "evaluating" if self.name == EVALUATION else f"evaluating on {self._short}"
        found = self._answers(step, words, progress, greedy=False)
        once = NO_ANSWERS
        if self.config.greedy:
            once = self._answers(step, f"{words} greedily", progress, greedy=True)
        sampled, greedy = found.each, once.each
        values = self._values(sampled, greedy)
        rewards = reward_values(sampled) | by_source(sampled)
        rewards |= self.contest.values(sampled) if self.contest else {}
        return Evaluation(
            name=self.name,
            judges=self._judges,
            sampled=sampled,
            greedy=greedy,
            figures=figures(values | rewards),
            by_task=self._by_task(sampled, greedy),
            counts=Counter(found.counts) + Counter(once.counts),
        )

    def _values(self, sampled: Sequence[Answered], greedy: Sequence[Answered]) -> Values:
        outcomes = [outcome(*pair) for pair in zip(sampled, self._classes(sampled), strict=True)]
        return values_of(outcomes, [outcome(each) for each in greedy], self.config.ks)

    def _by_task(
        self, sampled: Sequence[Answered], greedy: Sequence[Answered]
    ) -> dict[str, Figures]:
        """The figures of the problems of each task of a mix."""
        out: dict[str, Figures] = {}
        for task in self._judges.by_task:
            own, once = of_task(sampled, task), of_task(greedy, task)
            if own or once:
                total = reward_values(own).get(REWARD)
                rewards: Values = {} if total is None else {REWARD: total}
                out[task] = figures(self._values(own, once) | rewards)
        return out

    def _classes(self, sampled: Sequence[Answered]) -> Sequence[Sequence[int | None] | None]:
        """Which samples of each problem gave the same answer, if votes count and it can be said.

        Only if one reward judges them all.
        """
        names = {self._judges.of(answered.prompt.columns) for answered in sampled}
        judge = self.rewards.parts[names.pop()] if len(names) == 1 else None
        if not (isinstance(judge, Math) and self.config.ks[-1] > 1):
            return [None] * len(sampled)
        given = [
            [
                final_answer(text, completion_text(each.prompt.text_or_messages))
                for text in each.texts
            ]
            for each in sampled
        ]
        return self.rewards.processes.on_main(lambda: judge.classes(given))

    @property
    def _judges(self) -> Judges:
        return self.judges or Judges(next(iter(self.rewards.rewards)))

    @property
    def _short(self) -> str:
        return self.name.removeprefix(f"{EVALUATION}/")

    def _answers(self, step: int, words: str, progress: Progress, *, greedy: bool) -> Answers:
        """A sampled answer for each of `config.samples`, or a greedy one, to every problem."""
        n = 1 if greedy else self.config.samples
        asked = [Request(prompt=p, n=n) for p in self.prompts[: self.config.problems]]
        progress(words, 0, len(asked))
        call = GenerationCall(
            asked,
            (f"{self.name}-greedy" if greedy else self.name, step, 0),
            greedy=greedy,
            sampling=self.config.sampling if self.config.sampling.given else None,
            tell=lambda done: progress(words, done, len(asked)),
        )
        return answer(self.engine, self.rewards, self.tokenizer, call, self._judges)
