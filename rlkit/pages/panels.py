"""Which plots a run's page shows, under which question, and which metrics each holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.pages.columns import Columns
from rlkit.pages.score import PASS
from rlkit.runs.records import ROLLOUTS, SECONDS, TOKENS

SCORES = r"eval/(.+/)?(pass@\d+|avg@\d+|maj@\d+|greedy)"
SOURCES = r"eval/source/.+/pass@1"
OTHER_SCORES = rf"(?!{PASS}$|{SOURCES}$){SCORES}"
AGE = re.compile(r"_age_(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot: every metric whose whole key matches `keys`."""

    name: str
    """Its id on the page, which warnings link to."""
    title: str
    keys: str
    unit: str = ""
    note: str = ""
    x: str | None = None
    """An axis of its own; None = the one the reader has chosen."""
    stacked: bool = False
    log: bool = False
    smooth: bool = True
    quiet: bool = False
    """Left out while every value is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Plots that answer one question."""

    name: str
    title: str
    panels: Sequence[Panel]


LEARNS = Question(
    name="learns",
    title="Does it learn?",
    panels=(
        Panel(
            name="score",
            title="Held-out pass@1",
            keys=PASS,
            smooth=False,
        ),
        Panel(name="scores", title="Other held-out scores", keys=OTHER_SCORES, smooth=False),
        Panel(name="sources", title="Held-out pass@1 by source", keys=SOURCES, smooth=False),
        Panel(name="reward", title="Reward", keys=r"reward/(.+/)?mean"),
        Panel(name="spread", title="Spread of the rewards", keys=r"reward/std"),
        Panel(
            name="length",
            title="Response length",
            keys=r"(completions|eval/.+)/mean_length",
            unit="tokens",
        ),
        Panel(
            name="truncated",
            title="Responses cut at the length limit",
            keys=r"completions/clipped_ratio",
            unit="share",
        ),
        Panel(
            name="failures",
            title="Rewards that failed",
            keys=r"reward/(errors|timeouts|lost)",
            unit="per step",
            quiet=True,
            smooth=False,
        ),
    ),
)
COST = Question(
    name="cost",
    title="At what cost?",
    panels=(
        Panel(
            name="by-responses",
            title="Score over responses generated",
            keys=PASS,
            x=ROLLOUTS,
            smooth=False,
        ),
        Panel(
            name="by-tokens",
            title="Score over tokens generated",
            keys=PASS,
            x=TOKENS,
            smooth=False,
        ),
        Panel(
            name="by-seconds",
            title="Score over seconds of training",
            keys=PASS,
            x=SECONDS,
            smooth=False,
            note="Without the time of the evaluations themselves.",
        ),
        Panel(
            name="reuse",
            title="Times a response is trained on",
            keys=r"buffer/reuse_mean",
            unit="mean so far",
            smooth=False,
        ),
    ),
)
OFF_POLICY = Question(
    name="off-policy",
    title="How off-policy is it?",
    panels=(
        Panel(
            name="ages",
            title="Age of the trained responses",
            keys=r"buffer/age_(mean|max)|off_policy/staleness_(mean|max)",
            unit="steps",
        ),
        Panel(
            name="fresh",
            title="Fresh share of the batch",
            keys=r"buffer/fresh_fraction",
            unit="share",
        ),
        Panel(
            name="ratio",
            title="Ratio by age",
            keys=r"policy/ratio_mean(_age_\d+)?",
            note="Mean ratio of the policy to the one that sampled; 1 where they agree.",
        ),
        Panel(
            name="clip",
            title="Clipped share by age",
            keys=r"policy/clip_fraction(_age_\d+)?",
            unit="of tokens",
            note="Tokens whose ratio the loss clips, which stops their gradient.",
        ),
        Panel(
            name="ess",
            title="Effective sample size",
            keys=r"off_policy/ess",
            unit="share of the batch",
            note="1 = weighs like fresh data; near 0, a few tokens decide the update.",
        ),
        Panel(
            name="drift",
            title="KL to the policy that sampled",
            keys=r"off_policy/kl",
            unit="nats per token",
        ),
        Panel(
            name="engine",
            title="Engine against trainer",
            keys=r"off_policy/engine_(kl|difference_mean)",
            unit="nats per token",
            note="Log-probs of the same tokens under the same weights.",
        ),
        Panel(
            name="engine-worst",
            title="Largest difference from the engine",
            keys=r"off_policy/engine_difference_max",
            unit="nats",
        ),
        Panel(name="correction", title="Corrections", keys=r"correction/.+"),
        Panel(
            name="dropped",
            title="Groups dropped, waiting or unfinished",
            keys=r"(off_policy|buffer)/(dropped.*|ahead|partial_groups|waiting_groups)",
            unit="per step",
            quiet=True,
        ),
        Panel(
            name="continued",
            title="Responses continued from an earlier step",
            keys=r"off_policy/continued_fraction",
            unit="share",
            quiet=True,
        ),
        Panel(name="stock", title="What the buffer holds", keys=r"buffer/(size|groups)"),
    ),
)
STABLE = Question(
    name="stable",
    title="Is it stable?",
    panels=(
        Panel(name="entropy", title="Entropy", keys=r"policy/entropy", unit="nats per token"),
        Panel(name="kl", title="KL to the anchor", keys=r"anchor/kl(_.+)?", unit="nats per token"),
        Panel(name="loss", title="Loss", keys=r"(policy|critic)/loss"),
        Panel(name="norm", title="Gradient norm", keys=r"(policy|critic)/grad_norm"),
        Panel(name="peak", title="Largest ratio", keys=r"policy/ratio_max", log=True),
        Panel(
            name="skipped",
            title="Updates skipped",
            keys=r"policy/skipped_steps",
            unit="per step",
            quiet=True,
            smooth=False,
        ),
        Panel(
            name="critic", title="Critic's explained variance", keys=r"critic/explained_variance"
        ),
        Panel(name="weights", title="Anchor weights", keys=r"anchor/weight_.+", smooth=False),
        Panel(name="rate", title="Learning rate", keys=r"policy/lr|critic/lr", smooth=False),
    ),
)
TIME = Question(
    name="time",
    title="Where did the time go?",
    panels=(
        Panel(
            name="seconds",
            title="Seconds per step",
            keys=r"time/(rollout|reward|forward|update|sync|rest)",
            unit="seconds",
            stacked=True,
        ),
        Panel(
            name="throughput",
            title="Trained tokens per second",
            keys=r"throughput/tokens_per_s",
        ),
        Panel(
            name="eval-seconds",
            title="Seconds per evaluation",
            keys=r"time/eval",
            unit="seconds",
            smooth=False,
        ),
        Panel(name="memory", title="Peak memory", keys=r"memory/peak_mb", unit="MiB", smooth=False),
    ),
)
QUESTIONS = (LEARNS, COST, OFF_POLICY, STABLE, TIME)
NOT_PLOTTED = r"eval/.+_(error|low|high)|time/step|run/processes"
"""Drawn as part of another plot, or told in words."""


def payload(columns: Columns) -> list[dict[str, Any]]:
    """The questions with their plots, as a page's script reads them.

    A plot without a metric is left out, and so is a question without a plot. Metrics that no plot
    names get one each, under a last heading.
    """
    keys = [key for key in columns.metrics if not re.fullmatch(NOT_PLOTTED, key)]
    shown: set[str] = set()
    out = []
    for question in QUESTIONS:
        panels = []
        for panel in question.panels:
            found = [key for key in by_age(keys) if re.fullmatch(panel.keys, key)]
            shown.update(found)
            if found and not (panel.quiet and _zero(columns, found)):
                panels.append(_panel(panel, _lines(columns, found, merge=not panel.stacked)))
        if panels:
            out.append({"name": question.name, "title": question.title, "panels": panels})
    others = [
        _panel(Panel(name=f"other-{i}", title=key, keys=""), [{"keys": [key]}])
        for i, key in enumerate(key for key in keys if key not in shown)
    ]
    if others:
        out.append({"name": "others", "title": "Other metrics", "panels": others})
    return out


def is_score(key: str) -> bool:
    """Whether a metric is a held-out score, which has an interval."""
    return re.fullmatch(SCORES, key) is not None


def by_age(keys: Sequence[str]) -> list[str]:
    """Keys in their order, but those of one metric by age with age 10 after age 9."""
    return sorted(keys, key=lambda key: int(found[1]) if (found := AGE.search(key)) else -1)


def _zero(columns: Columns, keys: Sequence[str]) -> bool:
    return all(row.get(key, 0) == 0 for row in columns.rows for key in keys)


def _panel(panel: Panel, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = ("name", "title", "unit", "note", "x", "stacked", "log")
    settings = {name: value for name in told if (value := getattr(panel, name))}
    return {**settings, "lines": lines, **({} if panel.smooth else {"smooth": False})}


def _lines(columns: Columns, keys: Sequence[str], *, merge: bool) -> list[dict[str, Any]]:
    """One line for each metric; with `merge`, metrics that are equal everywhere share one."""
    lines: list[dict[str, Any]] = []
    alike: dict[tuple[tuple[int, float], ...], dict[str, Any]] = {}
    ages = {key: int(found[1]) for key in keys if (found := AGE.search(key))}
    oldest = max(ages.values(), default=0)
    for key in keys:
        values = tuple((i, row[key]) for i, row in enumerate(columns.rows) if key in row)
        if key in ages:
            age = ages[key]
            lines.append({"keys": [key], "age": age, "ramp": age / max(1, oldest)})
        elif merge and values in alike:
            alike[values]["keys"].append(key)
        else:
            alike[values] = {"keys": [key]}
            lines.append(alike[values])
    return lines
