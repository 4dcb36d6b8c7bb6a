"""The head of a run's page: what it is, what it reached at what cost, and what deserves a look."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rlkit.pages.alarms import alarms, measured
from rlkit.pages.html import text
from rlkit.pages.score import Progress, Score, all_progress, named
from rlkit.pages.times import PARTS, times
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, TOKENS, RunRecords

KINDS = ("loss", "advantage", "correction", "buffer", "anchor", "schedule", "rollout")
KINDS_OF_RUN = (*KINDS, "task", "environment", "reward")
STAGE = re.compile(r" \(stage (\d+)\)$")
LISTED = 8
"""Scores that the head lists; the plots show all."""


def headline(run: RunRecords) -> str:
    """The head of the page, as HTML."""
    scores = all_progress(run)
    cards = [*_scores(scores), *_cost(scores), *_times(run)]
    return (
        f'<header class="wrap"><h1>{text(name_of(run))}</h1>'
        f"{''.join(_composition(run))}<p class='soft'>{text(_facts(run))}</p>"
        f'<div class="cards">{"".join(cards)}</div>{_alarms(run)}</header>'
    )


def name_of(run: RunRecords) -> str:
    """What a run is called: the name of its folder."""
    return run.path.resolve().name


def composition(run: RunRecords) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each stage its name ("" if there is one alone), and the names of its parts by kind."""
    stages: dict[str, dict[str, list[str]]] = {}
    for section, part in run.components.items():
        found = STAGE.search(section)
        kind = section[: found.start() if found else None].partition(".")[0]
        names = stages.setdefault(f"stage {found[1]}" if found else "", {})
        names.setdefault(kind, []).append(str(part["name"]))
    return [
        (stage, [(kind, "+".join(kinds[kind])) for kind in KINDS_OF_RUN if kind in kinds])
        for stage, kinds in stages.items()
    ]


def chosen(run: RunRecords, key: str) -> str | None:
    """What was typed for a key of the command line, the last time it was."""
    found = [line.partition("=")[2] for line in run.overrides if line.partition("=")[0] == key]
    return found[-1] if found else None


def _composition(run: RunRecords) -> Iterable[str]:
    algorithm = chosen(run, "algorithm")
    lead = f"<b>{text(algorithm)}</b> " if algorithm else ""
    for stage, parts in composition(run):
        told = f"<i>{text(stage)}</i> " if stage else ""
        inner = " ".join(
            f'<span class="part"><span class="soft">{text(kind)}</span> {text(name)}</span>'
            for kind, name in parts
        )
        yield f'<p class="composition">{lead}{told}{inner}</p>'
        lead = ""


def _facts(run: RunRecords) -> str:
    last, train = run.records[-1], run.config.get("train")
    steps = train.get("steps") if isinstance(train, dict) else None
    of = f" of {_count(steps)}" if isinstance(steps, int) and steps > last[STEP] else ""
    model = run.config.get("model")
    told = [f"{_count(last[STEP])}{of} steps"]
    told += [f"{_count(last[ROLLOUTS])} responses"] if last[ROLLOUTS] else []
    told += [f"{_count(last[TOKENS])} tokens"] if last[TOKENS] else []
    told.append(f"{duration(last[SECONDS])} of training")
    told += [_gpu_hours(run)] if _gpu_hours(run) else []
    told += [f"model {model['name']}"] if isinstance(model, dict) and "name" in model else []
    told += [f"seed {run.config['seed']}"] if "seed" in run.config else []
    return " · ".join(told)


def _gpu_hours(run: RunRecords) -> str:
    """The GPU-hours of training, where the settings say that each process had a GPU."""
    model = run.config.get("model")
    device = model.get("device") if isinstance(model, dict) else None
    if not str(device).startswith("cuda"):
        return ""
    hours = sum(
        record["time/step"] * record.get("run/processes", 1) / 3600
        for record in run.records
        if "time/step" in record
    )
    return f"{hours:.3g} GPU-hours"


def _scores(scores: Sequence[Progress]) -> Iterable[str]:
    if not scores:
        yield _card("Held-out score", "<p>This run was not evaluated.</p>")
        return
    first, *others = scores
    best = (
        f"<p>Best {_score(first.best)} after step {first.best_step:.0f}</p>"
        if first.best.value > max(first.after.value, first.before.value)
        else ""
    )
    verdict = (
        ""
        if first.evaluations == 1 or first.is_distinguishable
        else "<p class='soft'>The intervals overlap: this may be chance.</p>"
    )
    rows = "".join(
        f"<tr><td>{text(named(s.key).removesuffix(' pass@1'))}</td>"
        f"<td class='figure'>{s.before.value:.3f}</td>"
        f"<td class='figure'>{s.after.value:.3f}</td>"
        f"<td class='figure soft'>{_ends(s.after)}</td></tr>"
        for s in others[:LISTED]
    )
    table = f"<div class='scroll'><table>{rows}</table></div>" if rows else ""
    more = f"<p class='soft'>and {len(others) - LISTED} more</p>" if len(others) > LISTED else ""
    yield _card(
        f"Held-out {named(first.key)}",
        f'<p class="big">{first.before.value:.3f} <span class="soft">→</span> '
        f"{first.after.value:.3f}</p><p class='soft'>95%: {_ends(first.before)} → "
        f"{_ends(first.after)}</p>{verdict}{best}{table}{more}",
    )


def _cost(scores: Sequence[Progress]) -> Iterable[str]:
    if not scores or scores[0].evaluations < 2:
        return
    first = scores[0]
    if not first.reached:
        yield _card("What it took", "<p>The score did not rise.</p>")
        return
    rows = "".join(
        f"<tr><td>{percent(r.share)}</td><td class='figure'>{r.score:.3f}</td>"
        f"<td class='figure'>{_count(r.responses)}</td><td class='figure'>{duration(r.seconds)}"
        f"</td><td class='figure'>{_count(r.step)}</td></tr>"
        for r in first.reached
    )
    yield _card(
        "What it took",
        "<div class='scroll'><table><tr><th>of the gain</th><th class='figure'>score</th>"
        "<th class='figure'>responses</th><th class='figure'>training</th>"
        f"<th class='figure'>step</th></tr>{rows}</table></div>"
        f"<p class='note'>At the first of {first.evaluations} evaluations that reached it.</p>",
    )


def _times(run: RunRecords) -> Iterable[str]:
    found = times(run)
    if found is None:
        return
    at, bars, keys = 0.0, [], []
    for part in found.parts:
        share, color = found.share(part), f"f{list(PARTS).index(part)}"
        bars.append(
            f'<rect class="{color}" x="{100 * at:.2f}" y="0" width="{100 * share:.2f}" '
            'height="10"></rect>'
        )
        keys.append(
            f'<span class="part"><i class="dot {color}"></i>{PARTS[part]} '
            f"<b>{percent(share)}</b></span>"
        )
        at += share
    evaluated = (
        f"<p class='note'>Evaluations took a further {duration(found.evaluations)}.</p>"
        if found.evaluations
        else ""
    )
    yield _card(
        "Where the time went",
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="Shares of the training time">{"".join(bars)}</svg>'
        f'<p class="keys">{" ".join(keys)}</p>{evaluated}',
    )


def _alarms(run: RunRecords) -> str:
    found = alarms(run)
    if not found:
        held = ", ".join(measured(run))
        more = f" Checked: {held}, failed rewards, skipped updates." if held else ""
        return f'<p class="calm"><b>Nothing to warn about.</b>{more}</p>'
    items = "".join(
        f"<li><b>{text(a.title)}.</b> {text(a.words)}"
        + (f' <a href="#plot-{a.panel}">See the plot</a>' if a.panel else "")
        + "</li>"
        for a in found
    )
    return f'<ul class="alarms">{items}</ul>'


def _card(title: str, inner: str) -> str:
    return f'<div class="card"><h2>{text(title)}</h2>{inner}</div>'


def _score(score: Score) -> str:
    return f"{score.value:.3f} <span class='soft'>{_ends(score)}</span>"


def _ends(score: Score) -> str:
    return f"[{score.low:.3f}, {score.high:.3f}]"


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def duration(seconds: float) -> str:
    """Seconds for the reader: 8.3 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def percent(share: float) -> str:
    """A share for the reader: 12%."""
    return f"{share:.0%}"
