"""The plots of a run's page: which questions its metrics answer, and the lines of each plot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.pages.columns import Columns, rounded
from rlkit.pages.questions import NOT_PLOTTED, QUESTIONS, SCORES, Panel

AGE = re.compile(r"_age_(\d+)$")


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
    alike: dict[tuple[tuple[int, float | None], ...], dict[str, Any]] = {}
    ages = {key: int(found[1]) for key in keys if (found := AGE.search(key))}
    oldest = max(ages.values(), default=0)
    for key in keys:
        values = tuple((i, rounded(row[key])) for i, row in enumerate(columns.rows) if key in row)
        if key in ages:
            age = ages[key]
            lines.append({"keys": [key], "age": age, "ramp": age / max(1, oldest)})
        elif merge and values in alike:
            alike[values]["keys"].append(key)
        else:
            alike[values] = {"keys": [key]}
            lines.append(alike[values])
    return lines
