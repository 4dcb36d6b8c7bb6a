"""What the measurements of benchmarks/results/ have in common: cases of runs, and tables of them.

A file is `{"cases": {name: case}, "tables": [table]}`. A case holds what it was measured with and
its runs. Runs are added until there are enough, and begun anew if anything they were measured with
has changed; some scripts replace a case whenever they measure it (`Records.put`).
`docs/performance.py` writes the tables as a page.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("rlkit", "algorithms", "buffers", "anchors", "schedules", "configs")
PACKAGES = ("torch", "transformers", "accelerate", "trl")


class Case(TypedDict):
    """The runs of one case and what they were measured with."""

    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    runs: dict[str, list[dict[str, Any]]]
    """Name of what was run -> its runs, in the order of their repeats."""


class Table(TypedDict):
    """A table and the lines above it."""

    title: str
    about: list[str]
    head: list[str]
    rows: list[list[str]]


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor, memory and what of it a measurement uses."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    out: dict[str, Any] = {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory / 2**30),
        "threads": threads,
    }
    return out if device == "cpu" else out | {"device": gpu_name()}


def gpu_name() -> str:
    """The first GPU, as nvidia-smi names it."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def versions() -> dict[str, str]:
    """Python, the packages that matter, and a hash of rlkit's own sources and configurations."""
    found = {"python": platform.python_version(), "rlkit": source_hash()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def source_hash() -> str:
    """A hash of the code that is measured, committed or not."""
    digest = hashlib.sha256()
    paths = (path for folder in SOURCES for path in (ROOT / folder).rglob("*.*"))
    for path in sorted(path for path in paths if path.suffix in {".py", ".yaml"}):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class Records:
    """A file of measurements, written after each run so that nothing measured is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.cases: dict[str, Case] = found.get("cases", {})

    def case(self, name: str, on: Mapping[str, Any], settings: Mapping[str, Any]) -> Case:
        """The case of that name; empty unless it was measured with all of this.

        `on` is the machine.
        """
        machine, given = json.loads(json.dumps([on, settings]))
        new = Case(machine=machine, versions=versions(), settings=given, runs={})
        old = self.cases.get(name)
        if old is None or {**old, "runs": {}} != new:
            self.cases[name] = new
        return self.cases[name]

    def put(
        self,
        name: str,
        on: Mapping[str, Any],
        settings: Mapping[str, Any],
        runs: Mapping[str, list[dict[str, Any]]],
    ) -> None:
        """The case of that name, with these runs in place of those it had."""
        self.case(name, on, settings)["runs"] = dict(runs)

    def save(self, tables: Sequence[Table]) -> None:
        """Write the cases and the tables made of them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps({"cases": self.cases, "tables": tables}, indent=1) + "\n")
        unfinished.replace(self.path)

    def finish(self, tables: Sequence[Table]) -> None:
        """Write the cases and the tables, and print the tables."""
        self.save(tables)
        for table in tables:
            show(table)


def measured_on(case: Case) -> list[str]:
    """Machine and versions, in two lines."""
    on = case["machine"]
    device = f", {on['device']}" if "device" in on else ""
    return [
        f"Machine: {on['processor']}, {on['cores']} cores, {on['memory_gib']} GiB{device}; "
        f"{on['threads']} threads.",
        "Versions: " + ", ".join(f"{name} {value}" for name, value in case["versions"].items()),
    ]


def alike(cases: Mapping[str, Case], *varied: str) -> list[dict[str, Case]]:
    """The cases of each table: of one machine, versions and settings other than the varied ones."""
    found: dict[str, dict[str, Case]] = {}
    for name, case in cases.items():
        key = json.dumps([case["machine"], case["versions"], constant(case, *varied)])
        found.setdefault(key, {})[name] = case
    return list(found.values())


def constant(case: Case, *varied: str) -> dict[str, Any]:
    """The settings but the varied ones."""
    return {name: value for name, value in case["settings"].items() if name not in varied}


def listed(settings: Mapping[str, Any]) -> str:
    """Settings in a sentence."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) + "."


def with_range(values: Sequence[float], digits: int = 3) -> str:
    """`median (least to most)`, or the value alone if there is one."""
    middle = significant(statistics.median(values), digits)
    if len(values) == 1:
        return middle
    return f"{middle} ({significant(min(values), digits)} to {significant(max(values), digits)})"


def significant(value: float, digits: int = 3) -> str:
    """A number in so many digits, without an exponent."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def verdict(value: float, target: float, *, at_most: bool) -> str:
    """Whether a target is met."""
    return "met" if (value <= target if at_most else value >= target) else "missed"


def judged(value: float, target: float, *, at_most: bool) -> list[str]:
    """The cells of a target: what it is, and whether it is met."""
    return [
        f"at {'most' if at_most else 'least'} {target:g}",
        verdict(value, target, at_most=at_most),
    ]


def show(table: Table) -> None:
    """Print a table in columns."""
    lines = [table["head"], *table["rows"]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table["head"]))]
    print(f"\n{table['title']}", *table["about"], sep="\n")
    for line in lines:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)))
