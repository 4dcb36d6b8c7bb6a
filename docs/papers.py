"""docs/papers.md: each paper, what is made from it, and how near that is.

Written from the parts' `sources` and docstrings and from the first lines of the compositions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlkit.composition.catalog import documentation, file_documentation, settings
from rlkit.config.revisits import BehaviorSettings, DraftSettings
from rlkit.interfaces import PartConfig
from rlkit.registry import Entry, entry, names
from rlkit.rollout.base import EngineAround
from rlkit.rollout.props import Props
from rlkit.rollout.spec_rl import SpecRL

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
KINDS = ("loss", "correction", "advantage", "buffer", "anchor", "schedule", "rollout", "reward")
NUMBER = re.compile(r"\b\d{4}\.\d{5}\b")
CODE = re.compile(r"Public code: (.+?)(?:\n\n|\Z)", re.DOTALL)
FIRST = re.compile(r".+?[.:;](?=\s|$)", re.DOTALL)
NOT_BUILT = (
    ("2606.04560", "rollout-level prioritized replay", "constants are missing; `prioritized`"),
    ("2606.01281", "POPO", "formula not readable"),
    ("2605.28150", "beta-shifted mean", "formula not readable; `asymre` shifts a baseline"),
    ("2605.19425", "DGG", "formula not readable"),
    ("2603.23355", "ReVal", "formula not readable"),
    ("2603.03955", "GIPO", "formula not readable"),
    ("2603.01501", "GAC", "projects gradients; formula not readable"),
    (
        "2602.06107",
        "Jackpot",
        "needs the top-k log-probs of both policies, which no engine here keeps",
    ),
    (
        "2602.17616",
        "VCPO",
        "needs the norm of each response's gradient; its learning rate is `train.lr_ess`",
    ),
    ("2601.18795", "PrefixRL", "schedule not readable; `Request.prefix` is there"),
    ("2601.03715", "R3L", "needs a reflection inside a response, which is a workflow"),
    ("2509.25808", "AR3PO", "formula not readable"),
    ("2405.16383", "R3", "formula not readable; `fifo` with a filter is near"),
    ("", "ARC, advantage reuse by competition", "nothing of it is readable"),
    ("", "HiPPO", "formula not readable; its neighbor HP3O is `buffer=highlight`"),
    ("1901.10031", "Lyapunov-safe PPO", "formula not readable; `reward.<name>.limit` is near"),
)
"""Number, name and reason of what the field knows and is not here."""
AROUND: dict[str, tuple[type[EngineAround], type[PartConfig]]] = {
    "rollout.draft=spec_rl": (SpecRL, DraftSettings),
    "rollout.behavior=props": (Props, BehaviorSettings),
}
"""Settings that put something around an engine, which no name in the registry does."""
LIMIT = 160
"""Most characters of what is said of the public code."""


def about(found: Entry) -> str:
    """All that a part says of itself: its class, its file, its settings."""
    told = [documentation(found), file_documentation(found)]
    return "\n\n".join([*told, *(s.meaning for s in settings(found))])


def nearness(parts: Sequence[Entry]) -> str:
    """exact, adapted or choice by the word after "Status:", and what is said to be unconfirmed.

    Where parts differ: that of the first, then the others with their parts.
    """
    by_word: dict[str, list[str]] = {}
    for part in parts:
        by_word.setdefault(nearness_in(about(part)), []).append(f"`{part.kind}={part.name}`")
    first, *others = by_word
    return "; ".join([first, *(f"{word}: {', '.join(by_word[word])}" for word in others)])


def nearness_in(text: str) -> str:
    """The same of a documentation, whose lines may break anywhere."""
    text = " ".join(text.split())
    adapted = re.search(r"Status:\s[^.;]*?\badapted\b", text) is not None
    chosen = re.search(r"Status:\s[^.;]*?\bour choice\b", text) is not None
    word = "adapted" if adapted else "choice" if chosen else "exact"
    return f"{word}, some values unconfirmed" if "unconfirmed" in text.lower() else word


def public_code(parts: Sequence[Entry]) -> str:
    """The first sentence about the authors' or others' code."""
    for part in parts:
        for text in (documentation(part), file_documentation(part)):
            if said := public_code_in(text):
                return said
    return ""


def public_code_in(text: str) -> str:
    """The same of a documentation; empty if it says nothing of that."""
    match = CODE.search(text)
    if match is None:
        return ""
    line = " ".join(match[1].split())
    first = FIRST.match(line)
    said = (first[0] if first else line).rstrip(":;")
    return said if len(said) <= LIMIT else said[:LIMIT].rsplit(" ", 1)[0] + " ..."


def link(number: str) -> str:
    """The paper's address on arXiv."""
    return f"[{number}](https://arxiv.org/abs/{number})" if number else ""


def around() -> Iterator[tuple[str, str, str, str]]:
    """The paper, the setting, nearness and public code of what stands around an engine."""
    for setting, (part, config) in AROUND.items():
        told = inspect.getdoc(part) or ""
        text = "\n".join([told, *(f.description or "" for f in config.model_fields.values())])
        for number in part.sources:
            yield number, f"`{setting}`", nearness_in(text), public_code_in(told)


def compositions() -> Iterator[tuple[str, str, str]]:
    """The group, the name and the head comment of every composition and experiment."""
    for group in ("algorithm", "experiment"):
        for path in sorted((CONFIGS / group).glob("*.yaml")):
            lines = path.read_text().splitlines()
            comment = [line[1:].strip() for line in lines if line.startswith("# ")]
            yield group, path.stem, " ".join(c for c in comment if not c.startswith("@package"))


def papers() -> list[tuple[str, str, str, str, str]]:
    """Number, parts, commands, nearness and public code of every paper, the newest first."""
    by_paper: dict[str, list[Entry]] = {}
    for kind in KINDS:
        for name in names(kind):
            found = entry(kind, name)
            for number in found.cls.sources:
                by_paper.setdefault(number, []).append(found)
    commands: dict[str, list[str]] = {}
    for group, name, comment in compositions():
        for number in dict.fromkeys(NUMBER.findall(comment)):
            word = f"algorithm={name}" if group == "algorithm" else f"+experiment={name}"
            commands.setdefault(number, []).append(f"`{word}`")
    rows = {
        number: (
            link(number),
            ", ".join(f"`{part.kind}={part.name}`" for part in parts),
            ", ".join(commands.get(number, [])),
            nearness(parts) if parts else "",
            public_code(parts),
        )
        for number in by_paper.keys() | commands.keys()
        for parts in [by_paper.get(number, [])]
    }
    for number, setting, near, code in around():
        run_with = ", ".join(commands.get(number, []))
        rows[number] = (link(number), setting, run_with, near, code)
    return [rows[number] for number in sorted(rows, reverse=True)]
