"""What a run left in its folder, read back: its metrics, settings and parts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlkit.errors import UserError

STEP, ROLLOUTS, TOKENS, SECONDS = "step", "rollouts/total", "rollouts/tokens", "time/total"
"""The axes. The last is not logged: it is the sum of time/step, so evaluation is not in it."""
Record = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """What a run left in its run folder."""

    path: Path
    records: Sequence[Record]
    config: Mapping[str, Any]
    components: Mapping[str, Any]
    overrides: Sequence[str]

    def series(self, key: str, x: str = STEP) -> tuple[list[float], list[float]]:
        """A metric over steps or responses: x and y of every record that holds it, and its x."""
        points = [(r[x], r[key]) for r in self.records if key in r and x in r]
        return [p[0] for p in points], [p[1] for p in points]

    def total(self, key: str) -> float:
        """The sum of a metric's finite values."""
        return sum(value for value in self.series(key)[1] if math.isfinite(value))

    def keys(self, pattern: str) -> list[str]:
        """The metrics whose whole key matches, in order of appearance; age_10 after age_9."""
        seen = dict.fromkeys(key for record in self.records for key in record)
        found = [key for key in seen if re.fullmatch(pattern, key)]
        return sorted(found, key=lambda key: int(m[1]) if (m := re.search(r"_(\d+)$", key)) else -1)

    def rebirths(self, x: str) -> list[float]:
        """The points on the axis `x` where the policy became its own base."""
        return self.rises("schedule/rebirths", x)

    def rises(self, key: str, x: str = STEP) -> list[float]:
        """The points on the axis `x` where a count, which begins at 0, is above what it was."""
        steps, counts = self.series(key, x)
        previous = [0.0, *counts]
        return [s for s, was, now in zip(steps, previous, counts, strict=False) if now > was]


def read_run(run_dir: Path) -> RunRecords:
    """Read a run folder. Raises UserError if there are no metrics or a file cannot be read.

    A last line without its newline is still being written, and is left out.
    """
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run_dir} holds no run: there is no metrics.jsonl in it")
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].split("\n")[:-1]
    if not lines:
        raise UserError(f"{path} is empty: the run has not logged anything yet")
    return RunRecords(
        path=run_dir,
        records=_on_all_axes([_record(line, path) for line in lines]),
        config=_mapping(run_dir / "config.yaml"),
        components=_mapping(run_dir / "components.json"),
        overrides=_text(run_dir / "overrides").splitlines(),
    )


def _record(line: str, path: Path) -> dict[str, float]:
    """The numbers of a line; what else a user's tracker or part has put there is left out."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path} holds a line that is not JSON: {error}") from None
    if not isinstance(found, dict) or STEP not in found:
        raise UserError(f"{path} holds a line that is not an object with a step: {line[:60]}")
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file (which is YAML too); nothing if there is none."""
    try:
        text = _text(path)
        found = (json.loads if path.suffix == ".json" else yaml.safe_load)(text) if text else {}
    except (ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read: {first}") from None
    return found if isinstance(found, dict) else {}


def _on_all_axes(records: Sequence[Record]) -> list[Record]:
    """Give every record the responses and tokens generated and the seconds trained up to it."""
    totals = {ROLLOUTS: 0.0, TOKENS: 0.0}
    seconds = 0.0
    out: list[Record] = []
    for record in records:
        totals = {key: record.get(key, before) for key, before in totals.items()}
        seconds += record.get("time/step", 0.0)
        out.append({**record, **totals, SECONDS: seconds})
    return out
