"""Which architectures of transformers rlkit trains: a tiny random model of each is checked.

    python benchmarks/architectures.py
    python benchmarks/architectures.py --only mamba jamba

Without `--only` it writes the lists of docs/models.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.architectures import KINDS, Finding, survey

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
WIDTH = 120
REASONS = {
    "with the padding of its batch": "any engine: log-probs change with the padding of a batch",
    "it gives no cache": "`rollout=hf`: it gives no cache",
    "from the trainer's": "`rollout=hf`: its forward with a cache differs from the whole forward",
}
"""Part of a message -> what the table says."""
FIRST = "## Works"
"""The heading of the first list."""
TITLES = {"refused": "Refused", "fails": "Fails in its own code", "not built": "Not tried"}


def row(found: Finding) -> str:
    """A line of the table of refusals."""
    said = [text for part, text in REASONS.items() if part in found.reason]
    reason = said[0] if said else f"`{re.sub('[`|]', '', found.reason)}`"
    return f"| `{found.kind}` | {found.name} | {reason} |"


def lists(findings: Sequence[Finding]) -> str:
    """The lists of docs/models.md."""
    by_status = {
        status: list(group) for status, group in groupby(sorted(findings, key=_status), key=_status)
    }
    parts = [
        f"{FIRST} (transformers {transformers.__version__})",
        names(by_status.pop("works")),
        "## Works in padded rows",
        names(by_status.pop("padded", [])),
    ]
    for status, title in TITLES.items():
        rows = [row(found) for found in by_status.get(status, [])]
        table = ["| model_type | class | reason |", "|---|---|---|", *rows]
        parts += [f"## {title}", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def names(findings: Sequence[Finding]) -> str:
    """The architectures, one after the other."""
    text = ", ".join(f"`{found.kind}`" for found in findings)
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _status(found: Finding) -> str:
    return found.status


def main() -> None:
    """Examine architectures; write the lists if all were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="KIND", help="model types")
    chosen = parser.parse_args().only
    findings = survey(chosen or KINDS)
    for found in findings:
        print(f"{found.kind:26} {found.status:10} {found.reason}")
    if not chosen:
        PAGE.write_text(PAGE.read_text().partition(FIRST)[0] + lists(findings))


if __name__ == "__main__":
    main()
