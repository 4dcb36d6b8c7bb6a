"""The results of an evaluation: one dict, which is results.json, the table and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlkit.evaluation.figures import Figures, Values, figures, macro


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out on one benchmark."""

    name: str
    title: str
    source: str
    flaws: str
    notes: Sequence[str]
    settings: Mapping[str, Any]
    values: Values
    """Each figure by problem."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How often rewards failed over the responses, by what happened."""
    responses: int = 0
    """How many there are."""


def results_of(
    results: Sequence[Result], settings: Mapping[str, Any], suite: str | None, seed: int
) -> dict[str, Any]:
    """The results with their intervals; the macro average if there are several benchmarks."""
    return {
        "suite": suite,
        "settings": dict(settings),
        "benchmarks": {
            result.name: {
                "title": result.title,
                "source": result.source,
                "flaws": result.flaws,
                "notes": list(result.notes),
                "settings": dict(result.settings),
                "figures": as_dicts(figures(result.values, seed)),
                "counts": dict(result.counts),
            }
            for result in results
        },
        "macro": as_dicts(macro([r.values for r in results], seed)) if len(results) > 1 else None,
    }


def as_dicts(found: Figures) -> dict[str, dict[str, float]]:
    """Each figure as a dict: value, error, low, high, n."""
    return {name: asdict(estimate) for name, estimate in found.items()}
