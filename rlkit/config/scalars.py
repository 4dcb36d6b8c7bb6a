"""Scalar schedules: a dict with `kind` in place of a part's number.

    anchor.beta={kind: cosine, start: 0.1, end: 0, steps: 100}

Steps count from 1; step 1 gets the first value.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from rlkit.config.validation import validation_message
from rlkit.errors import UserError, suggest
from rlkit.interfaces.part import PartConfig
from rlkit.ops import staircase

Steps = Annotated[int, Field(ge=1)]
Delay = Annotated[int, Field(ge=0)]


class Scalar(PartConfig):
    """A number that changes over the steps of a run."""

    @abstractmethod
    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """The number at a step; `metrics` are the previous step's and the latest evaluation's."""

    @abstractmethod
    def extremes(self) -> tuple[float, ...]:
        """Values that bound all others; each must be legal for the field."""


class Constant(Scalar):
    """The same value at every step."""

    kind: Literal["constant"] = "constant"
    start: float = 0.0
    """The number."""

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """The number."""
        return self.start

    def extremes(self) -> tuple[float, ...]:
        """The number."""
        return (self.start,)


class Ramp(Scalar):
    """From `start` to `end` in `steps` steps, after `delay` steps at `start`."""

    start: float = 0.0
    """The value up to step 1 + delay."""
    end: float = 0.0
    """The value from step 1 + delay + steps."""
    steps: Steps = 100
    """Steps from `start` to `end`."""
    delay: Delay = 0
    """Steps at `start` before it begins."""

    def done(self, step: int) -> float:
        """The fraction of the ramp completed, 0 to 1."""
        return min(max(step - 1 - self.delay, 0) / self.steps, 1.0)

    def extremes(self) -> tuple[float, ...]:
        """Its two ends."""
        return (self.start, self.end)


class Linear(Ramp):
    """A straight line; a warm-up is `start: 0`."""

    kind: Literal["linear"] = "linear"

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """start + (end - start) t."""
        return self.start + (self.end - self.start) * self.done(step)


class Cosine(Ramp):
    """Half a cosine: flat at both ends."""

    kind: Literal["cosine"] = "cosine"

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """start + (end - start) (1 - cos(pi t)) / 2."""
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * self.done(step))) / 2


class Staircase(Scalar):
    """Drops of equal size at equal intervals, down to a floor (KL-Convex's lambda)."""

    kind: Literal["staircase"] = "staircase"
    start: float = 1.0
    """The value up to step `delay`."""
    decrement: float = 0.1
    """Size of a drop, as a share of start."""
    interval: Steps = 10
    """Steps between drops."""
    floor: float = 0.0
    """Lowest value, as a share of start."""
    delay: Delay = 0
    """The last step before the first drop."""

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """start max(1 - decrement ceil((step - delay) / interval), floor)."""
        share = staircase(step, self.delay, self.interval, self.decrement, self.floor)
        return self.start * share

    def extremes(self) -> tuple[float, ...]:
        """The start and the floor."""
        return (self.start, self.start * self.floor)


class Piecewise(Scalar):
    """Straight lines between points, constant before the first and after the last."""

    kind: Literal["piecewise"] = "piecewise"
    points: tuple[tuple[Steps, float], ...] = ((1, 0.0),)
    """Pairs of a step and its value, in order of the steps."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        steps = [step for step, _ in self.points]
        if not steps or steps != sorted(set(steps)):
            raise ValueError("points must be one or more [step, value] pairs with increasing steps")
        return self

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """Linear interpolation."""
        before, x = self.points[0]
        for after, y in self.points:
            if step <= after:
                return y if after == before else x + (y - x) * (step - before) / (after - before)
            before, x = after, y
        return x

    def extremes(self) -> tuple[float, ...]:
        """Every point's value."""
        return tuple(value for _, value in self.points)


class Threshold(Scalar):
    """One value while a metric is below a threshold, another while it is not."""

    kind: Literal["threshold"] = "threshold"
    metric: str = "eval/pass@1"
    """The metric's key, of the previous step or the latest evaluation."""
    threshold: float = 0.5
    """The metric's value at which it switches."""
    below: float = 0.0
    """The value below the threshold, and in step 1, when the metric does not exist yet."""
    above: float = 0.0
    """The value at or above it."""

    def value(self, step: int, metrics: Mapping[str, float]) -> float:
        """`above` or `below`. An unknown metric is an error from step 2."""
        if self.metric not in metrics:
            if step > 1:
                raise UserError(
                    f"there is no metric '{self.metric}'.{suggest(self.metric, list(metrics))}"
                )
            return self.below
        return self.above if metrics[self.metric] >= self.threshold else self.below

    def extremes(self) -> tuple[float, ...]:
        """Both values."""
        return (self.below, self.above)


SHAPES: dict[str, type[Scalar]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "staircase": Staircase,
    "piecewise": Piecewise,
    "threshold": Threshold,
}


def is_scalar(value: Any) -> bool:
    """Whether a config value is a scalar schedule: a dict with a `kind`."""
    return isinstance(value, Mapping) and "kind" in value


def scalar_of(place: str, node: Mapping[str, Any]) -> Scalar:
    """The scalar schedule at a place in the configuration ("anchor.beta")."""
    kind = str(node["kind"])
    cls = SHAPES.get(kind)
    if cls is None:
        known = list(SHAPES)
        raise UserError(
            f"{place}.kind={kind} is not a scalar schedule.{suggest(kind, known)} "
            f"Known: {', '.join(known)}"
        )
    try:
        return cls(**node)
    except ValidationError as error:
        raise UserError(validation_message(error, cls, f"{place}.")) from None
