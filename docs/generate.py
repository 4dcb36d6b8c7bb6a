"""Write the reference pages of docs/ from the registered parts: `python docs/generate.py`.

Everything in them comes from the code: docstrings, config fields, defaults. A test compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from papers import NOT_BUILT, link, papers

from rlkit.composition.catalog import Setting, documentation, file_documentation, settings
from rlkit.composition.config_files import configs_folder, files_of, read_config_file
from rlkit.config.validation import as_written
from rlkit.interfaces import LossConfig, PartConfig
from rlkit.plugins import LIST_KINDS
from rlkit.registry import Entry, build, entry, names
from rlkit.runs.resume import flat

DOCS = Path(__file__).resolve().parent
STATUS = re.compile(r"Status:\s[^.;]*?\b(exact|adapted|our)\b")
STATUSES = {"exact": "exact", "adapted": "adapted", "our": "choice"}
"""The first of these words after "Status:" in a docstring -> what the tables say."""
WITH_STATUS = ("buffer", "anchor", "schedule")
COMMON = LossConfig()
MADE = "Written by `python docs/generate.py` from the code."


def cell(text: str) -> str:
    """Text in a table's cell."""
    return text.replace("|", "\\|")


def table(rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first row is its head."""
    lines = ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def paragraphs(text: str) -> str:
    """A docstring as markdown: indented lines are an equation."""
    blocks = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            blocks.append("```\n" + "\n".join(line[4:] for line in lines) + "\n```")
        else:
            blocks.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(blocks)


def own_settings(found: Entry) -> list[Setting]:
    """The settings of a part that are its own, or whose default is not every loss's."""
    common = {name: getattr(COMMON, name) for name in LossConfig.model_fields}
    return [
        setting
        for setting in settings(found)
        if setting.name not in common
        or build(found.kind, found.name).config.model_dump()[setting.name] != common[setting.name]
    ]


def alias_of(found: Entry) -> Entry | None:
    """The registered part whose config this one restates, if any."""
    parents = found.config.__mro__[1:]
    return next(
        (
            other
            for parent in parents
            for other in (entry(found.kind, name) for name in names(found.kind))
            if other.config is parent and other.cls.__module__ == found.cls.__module__
        ),
        None,
    )


def settings_table(found: Entry) -> str:
    """The part's settings; of one that restates another, the defaults that differ."""
    parent, chosen = alias_of(found), own_settings(found)
    if parent is not None:
        theirs = build(found.kind, parent.name).config.model_dump()
        ours = build(found.kind, found.name).config.model_dump()
        chosen = [s for s in chosen if s.name not in theirs or ours[s.name] != theirs[s.name]]
        lead = f"Settings as `{parent.name}`" + (", except:" if chosen else ".")
    else:
        lead = "" if chosen else "No settings of its own."
    if not chosen:
        return lead
    rows = [("setting", "default", "values", "meaning")]
    rows += [(f"`{s.name}`", f"`{s.default}`", s.values, s.meaning) for s in chosen]
    return (lead + "\n\n" if lead else "") + table(rows)


def sources(found: Entry) -> str:
    """Links to the papers that define the part."""
    return ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in found.cls.sources)


def status(found: Entry) -> str:
    """How near the part is to its source: exact, adapted, or a choice of ours.

    Its class says so, or else its file.
    """
    about = documentation(found), file_documentation(found)
    said = [match[1] for match in map(STATUS.search, about) if match]
    if not said:
        raise ValueError(
            f"{found.import_path} needs `Status: exact`, `adapted` or `our choice` in its docstring"
        )
    return STATUSES[said[0]]


def part(found: Entry) -> str:
    """The section of one part."""
    return f"### `{found.name}`\n\n{paragraphs(documentation(found))}\n\n{settings_table(found)}\n"


def by_file(kind: str) -> list[tuple[str, list[Entry]]]:
    """The parts of a kind, with those of one file together under its documentation."""
    files: dict[str, list[Entry]] = {}
    for name in names(kind):
        found = entry(kind, name)
        files.setdefault(found.cls.__module__, []).append(found)
    order = sorted(files.items())
    return [(file_documentation(parts[0]), sorted(parts, key=place_of)) for _, parts in order]


def place_of(found: Entry) -> int:
    """Where the part stands among the names of its file."""
    return list(vars(sys.modules[found.cls.__module__])).index(found.cls.__qualname__)


def sections(kind: str) -> str:
    """Every part of a kind."""
    out = []
    for about, parts in by_file(kind):
        title, _, rest = about.partition("\n\n")
        out.append(f"## {paragraphs(title).rstrip('.')}\n")
        if rest:
            out.append(paragraphs(rest) + "\n")
        out += [part(each) for each in parts]
    return "\n".join(out)


def variants(kind: str) -> str:
    """The files that give some settings of a part a name; nothing if there are none."""
    rows = [("variant", "of", "sets", "what it is")]
    for name, path in sorted(files_of(kind, [configs_folder()]).items()):
        file = read_config_file(path)
        values = flat(file.values) if file.values else {}
        set_here = (f"`{key}={as_written(value)}`" for key, value in values.items())
        of = ", ".join(f"`{base}`" for base in file.bases)
        rows.append((f"`{name}`", of, ", ".join(set_here), " ".join(file.about.split())))
    if len(rows) == 1:
        return ""
    how = f"{kind}=[<variant>]" if kind in LIST_KINDS else f"{kind}=<variant>"
    return f"Variants, chosen as `{how}`: files in `configs/{kind}/`.\n\n{table(rows)}\n"


def ratio_to(config: PartConfig, needs: frozenset[str]) -> str:
    """Which policy stands under a loss's ratio."""
    if hasattr(config, "ratio_to"):
        return f"{config.ratio_to} (`ratio_to`)"
    return ", ".join(sorted(needs)) or "none"


def losses_page() -> str:
    """docs/losses.md."""
    rows = [("loss", "reads", "aggregation", "rows seen together", "sources")]
    for name in names("loss"):
        loss = build("loss", name)
        rows.append(
            (
                f"`{name}`",
                ratio_to(loss.config, loss.needs),
                loss.config.aggregation,
                loss.scope if loss.scope != "token" else "",
                sources(entry("loss", name)),
            )
        )
    common = [("setting", "default", "values", "meaning")]
    base = Entry("loss", "every loss", type("Every", (), {"Config": LossConfig}))
    common += [(f"`{s.name}`", f"`{s.default}`", s.values, s.meaning) for s in settings(base)]
    return "\n".join(
        [
            "# Policy losses\n",
            f"{MADE} `reads` names the log-probs a loss takes besides the policy's own: `behavior` "
            "is the policy that sampled a token, `prox` the one the step starts from, "
            "`anchor:base` a frozen reference.\n",
            table(rows) + "\n",
            "Settings every loss has; the sections below list them only where a default differs.\n",
            table(common) + "\n",
            variants("loss"),
            sections("loss"),
        ]
    )


def kind_page(kind: str, title: str, about: str) -> str:
    """A page with every part of a kind."""
    found = [entry(kind, name) for name in names(kind)]
    rows = [[f"`{each.name}`", sources(each)] for each in found]
    head = [kind, "sources"]
    if kind in WITH_STATUS:
        rows = [[*row, status(each)] for row, each in zip(rows, found, strict=True)]
        head.append("status")
    rows.insert(0, head)
    every = [f"# {title}\n", about + "\n", table(rows) + "\n", variants(kind), sections(kind)]
    return "\n".join(part for part in every if part)


def papers_page() -> str:
    """docs/papers.md."""
    head = ("paper", "parts", "run it with", "how near", "public code")
    return "\n".join(
        [
            "# Papers\n",
            f"{MADE} Every paper that a part or a composition is made from, the newest first. Run "
            "one with `python -m rlkit.run` and the words of its column. What is `adapted` or "
            "`unconfirmed` is said by the part: `rlkit show <kind> <name>`.\n",
            table([head, *papers()]) + "\n",
            "## Not here\n",
            table(
                [
                    ("paper", "name", "why, and what is near"),
                    *((link(number), name, why) for number, name, why in NOT_BUILT),
                ]
            ),
        ]
    )


def pages() -> dict[str, str]:
    """File name -> content."""
    return {
        "papers.md": papers_page(),
        "losses.md": losses_page(),
        "advantages.md": kind_page(
            "advantage", "Advantage estimators", f"{MADE} Choose one with `advantage=<name>`."
        ),
        "corrections.md": kind_page(
            "correction",
            "Corrections",
            f"{MADE} They weigh or mask the policy's terms of any loss, in list order: "
            "`correction=[tis,overlong_filter]`.",
        ),
        "buffers.md": kind_page(
            "buffer", "Replay buffers", f"{MADE} Which groups a step trains: `buffer=<name>`."
        ),
        "anchors.md": kind_page(
            "anchor",
            "Anchors",
            f"{MADE} The reference policies that training is held to: `anchor=<name>`.",
        ),
        "schedules.md": kind_page(
            "schedule",
            "Schedules",
            f"{MADE} When the base, the buffer and the optimizer are reset: `schedule=<name>`.",
        ),
    }


def main() -> int:
    """Write every page."""
    for name, text in pages().items():
        (DOCS / name).write_text(text.rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
