"""What a study is: benchmarks/studies/*.yaml, checked before anything runs.

A study names its question, its hypotheses and its decision rule before it is run, so that the
result cannot choose them. Every method gets the same sweep of learning rates on tuning seeds, and
is reported on other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlkit.errors import UserError, suggest

STUDIES = Path(__file__).resolve().parent / "studies"
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
Words = tuple[Text, ...]
Cell = tuple[str, float | None]
"""A variant at a value of the axis; None without one."""


class Section(BaseModel):
    """A part of the file: unknown keys are refused, nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(Section):
    """A way of training."""

    overrides: Words
    """Words of the command line. `{seed}` in them is the seed of the run."""
    control: Text | None = None
    """The variant it is compared with besides the baseline."""
    tuned_as: Text | None = None
    """The variant whose learning rate it takes; null = a sweep of its own."""


class Hypothesis(Section):
    """A claim that two variants decide."""

    says: Text
    """In a sentence."""
    better: Text
    """The variant that is said to be better."""
    than: Text
    """The other one."""
    at: tuple[float, ...] | None = None
    """The values of the axis at which it is said; null = all, but for `since`."""
    since: float | None = None
    """Compare what each variant gained or lost since this value of the axis; null = its score."""
    ratios: tuple[Positive, ...] = ()
    """Generation costs at which it is said, at equal compute; none = at the study's budget."""
    cost: Literal["responses", "tokens", "seconds"] | None = None
    """Compare what the variants had spent when they reached the target; null = their scores."""
    of: Literal["score", "length", "entropy"] = "score"
    """What is compared when the budget is spent: the score, the tokens of an evaluated response, or
    the entropy of the policy in training."""


class Axis(Section):
    """A setting that every variant is run at several values of."""

    name: Text
    key: Text
    """The setting."""
    values: Annotated[tuple[float, ...], Field(min_length=2)]
    tuned_at: float | None = None
    """The value at which learning rates are tuned for all of them; null = at each for itself."""

    @model_validator(mode="after")
    def _tuned_where_it_runs(self) -> Axis:
        if self.tuned_at is not None and self.tuned_at not in self.values:
            raise ValueError(f"tuned_at={self.tuned_at:g} is none of its values")
        return self


class Metric(Section):
    """The score of a run: a logged value when the run has spent its budget."""

    key: Text = "eval/pass@1"
    unit: Literal["step", "responses", "tokens"] = "responses"
    """What the budget counts."""
    amount: Positive
    """The budget; between two evaluations the score is interpolated along a line."""
    target: float
    """Costs are what a run had spent when it first had this score; between two evaluations both are
    interpolated along a line."""


class Tuning(Section):
    """The sweep, the same for every method: the value with the best median score is taken."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=4)]
    overrides: Words = ()
    """What differs from reporting, such as the problems that are evaluated."""


class Reporting(Section):
    """The runs that count."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=3)]
    overrides: Words = ()


class Study(Section):
    """A question, and the runs that answer it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    order: int
    """Its place among the studies."""
    title: Text
    question: Text
    hypotheses: Annotated[tuple[Hypothesis, ...], Field(min_length=1)]
    decision: Text
    """When a hypothesis counts as shown."""
    testbed: Text
    """Model, task and budget in a sentence or two."""
    not_run: Words = ()
    """What the study leaves open."""
    prepare: Words = ()
    """Words for Python, run once before the first run: a script and its arguments, or -m and a
    module. With `{seed}` in them, as in overrides, they are run for every seed."""
    overrides: Words
    """Of every run."""
    variants: Annotated[dict[Text, Variant], Field(min_length=2)]
    baseline: Text
    """The variant that all others are compared with."""
    axis: Axis | None = None
    metric: Metric
    tuning: Tuning | None = None
    """None only for a study that compares no methods, but values of one setting."""
    reporting: Reporting
    generation_costs: tuple[Positive, ...] = ()
    """The score is also computed at equal compute, where generating the baseline's responses takes
    so many times as long as everything else."""
    minutes_per_run: Positive
    """Processor minutes that a run is expected to take."""

    @model_validator(mode="after")
    def _names_are_variants(self) -> Study:
        named = {"baseline": self.baseline}
        for name, variant in self.variants.items():
            named |= {f"variants.{name}.control": variant.control} if variant.control else {}
            named |= {f"variants.{name}.tuned_as": variant.tuned_as} if variant.tuned_as else {}
        for place, claim in enumerate(self.hypotheses):
            named[f"hypotheses.{place}.better"] = claim.better
            named[f"hypotheses.{place}.than"] = claim.than
        for key, value in named.items():
            if value not in self.variants:
                raise ValueError(f"{key}={value} is no variant.{suggest(value, self.variants)}")
        return self

    @model_validator(mode="after")
    def _values_are_on_the_axis(self) -> Study:
        values = self.axis.values if self.axis else ()
        for place, claim in enumerate(self.hypotheses):
            since = () if claim.since is None else (claim.since,)
            for key, given in (("at", claim.at or ()), ("since", since)):
                if strange := [value for value in given if value not in values]:
                    raise ValueError(
                        f"hypotheses.{place}.{key}={strange[0]:g} is no value of the axis"
                    )
            if claim.cost and (since or claim.ratios):
                raise ValueError(f"hypotheses.{place}.cost={claim.cost}: not with since or ratios")
            if claim.of != "score" and (claim.cost or claim.ratios):
                raise ValueError(f"hypotheses.{place}.of={claim.of}: not with cost or ratios")
            if since and (claim.ratios or claim.since in (claim.at or ())):
                raise ValueError(
                    f"hypotheses.{place}.since={claim.since:g}: not with ratios, nor at itself"
                )
            if strange := [r for r in claim.ratios if r not in self.generation_costs]:
                raise ValueError(
                    f"hypotheses.{place}.ratios={strange[0]:g} is none of generation_costs"
                )
        return self

    @model_validator(mode="after")
    def _tuned_apart(self) -> Study:
        if self.tuning is None:
            return self
        if shared := sorted({*self.tuning.seeds} & {*self.reporting.seeds}):
            raise ValueError(
                f"reporting.seeds holds {shared[0]}, which is a tuning seed: a run that chose the "
                "learning rate cannot be reported"
            )
        for name, variant in self.variants.items():
            if variant.tuned_as and self.variants[variant.tuned_as].tuned_as:
                raise ValueError(f"variants.{name}.tuned_as={variant.tuned_as} is not tuned itself")
        return self

    def source_of_rate(self, variant: str, at: float | None) -> Cell:
        """The variant, and the value of the axis, whose sweep gives this one its learning rate."""
        fixed = self.axis.tuned_at if self.axis else None
        return self.variants[variant].tuned_as or variant, at if fixed is None else fixed

    @property
    def cells(self) -> list[Cell]:
        """Every variant at every value of the axis, value by value."""
        return [(variant, at) for at in self.values for variant in self.variants]

    @property
    def values(self) -> tuple[float | None, ...]:
        """Those of the axis; None alone without one."""
        return self.axis.values if self.axis else (None,)


def read_study(path: Path) -> Study:
    """The study in a file. Raises UserError, in one line, for what is wrong with it."""
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no study: it must be keys and values")
    return checked(found, str(path))


def checked(found: Mapping[str, Any], where: str) -> Study:
    """A study from its keys and values."""
    try:
        return Study.model_validate(found)
    except ValidationError as error:
        raise UserError(f"{where}: {_message(error)}") from None


def _message(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}.{suggest(key, _keys()) if len(first['loc']) == 1 else ''}"
    if first["type"] == "missing":
        return f"{key} is missing"
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key}: {said}" if key else said


def _keys() -> list[str]:
    return [*Study.model_fields]
