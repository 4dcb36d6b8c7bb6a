"""What `rlkit eval --on` will do: options and suite as one plan, and the settings it records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rlkit
from rlkit.composition.benchmark_options import (
    MAX_TOKENS,
    RESPONSES,
    TEMPERATURE,
    TOP_P,
    Options,
)
from rlkit.config.sampling import Sampling
from rlkit.evaluation.benchmarks import Suite
from rlkit.evaluation.examination import Protocol
from rlkit.evaluation.figures import check_ks
from rlkit.evaluation.golds import Key
from rlkit.evaluation.problems import Target, targets
from rlkit.evaluation.store import safe


def first(*values: Any) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options, completed by the suite and the defaults."""

    options: Options
    suite: Suite | None
    targets: Sequence[Target]

    @staticmethod
    def of(options: Options, tasks: Sequence[str]) -> Plan:
        """The plan of some options. Raises UserError for unknown names or too few samples."""
        suite = options.of_suite
        asked = first(options.on, suite and ",".join(suite.benchmarks))
        plan = Plan(options=options, suite=suite, targets=targets(asked, tasks))
        for target in plan.targets:
            check_ks(options.k or (), plan.protocol(target).samples)
        return plan

    @property
    def key(self) -> Key:
        """Whose answers Minerva is marked with."""
        wanted = first(self.options.key, self.suite and self.suite.key)
        return "remix" if wanted == "remix" else "original"

    @property
    def template(self) -> str | None:
        """The template asked for; None = what suits the model."""
        return first(self.options.template, self.suite and self.suite.template)  # type: ignore[no-any-return]

    @property
    def max_tokens(self) -> int:
        """Most tokens of a response."""
        suite = self.suite and self.suite.max_tokens
        return first(self.options.max_tokens, suite, MAX_TOKENS)  # type: ignore[no-any-return]

    def fitting(self, room: int) -> Plan:
        """This plan with shorter responses if the model lacks positions for the default length.

        A length that was asked for stays.
        """
        free = self.options.max_tokens is None and self.suite is None
        if not free or room >= MAX_TOKENS or room < 1:
            return self
        return replace(self, options=replace(self.options, max_tokens=room))

    @property
    def sampling(self) -> Sampling:
        """How the samples are drawn."""
        o, suite = self.options, self.suite
        return Sampling(
            temperature=first(o.temperature, suite and suite.temperature, TEMPERATURE),
            top_p=first(o.top_p, suite and 1.0, TOP_P),
            top_k=first(o.top_k, 0),
            max_completion_length=self.max_tokens,
        )

    def protocol(self, target: Target) -> Protocol:
        """How a target's problems are sampled."""
        of_suite = self.suite.samples.get(target.name, 1) if self.suite else None
        return Protocol(
            samples=first(self.options.samples, of_suite, 1),
            greedy=first(self.options.greedy, self.suite is not None),
            sampling=self.sampling,
            responses=first(self.options.chunk, RESPONSES),
        )

    def folder(self, settings: Mapping[str, Any]) -> Path:
        """Where the results go: a name that differs whenever the model or the sampling does."""
        if self.options.out is not None:
            return Path(self.options.out).expanduser()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        model = safe("-".join(Path(str(settings["model"])).parts[-2:]))
        return Path("evals") / f"{model}-{digest}"


def settings_of(
    plan: Plan, raw: Mapping[str, Any], model: str, weights: str | None
) -> dict[str, Any]:
    """What all samples depend on, besides their problems."""
    protocol = plan.protocol(plan.targets[0])
    return {
        "rlkit": rlkit.__version__,
        "model": model,
        "weights": weights,
        "dtype": raw["model"]["dtype"],
        "engine": raw["rollout"]["name"],
        "stop": list(raw["rollout"].get("stop") or ()),
        "seed": raw["seed"],
        **plan.sampling.given,
        "greedy": protocol.greedy,
        "chunk": protocol.responses,
    }
