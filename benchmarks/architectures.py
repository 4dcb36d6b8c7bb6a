"""Which architectures of transformers rlkit trains: a tiny random model of each, checked as a run is.

    python benchmarks/architectures.py
    python benchmarks/architectures.py --only mamba jamba

Without `--only` it writes docs/models.md.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import transformers

from tests.architectures import KINDS, Finding, survey

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
WIDTH = 120
REASONS = {
    "with the padding of its batch": "any engine: log-probs change with the padding of a batch",
    "it gives no cache": "`rollout=hf`: it gives no cache",
    "from the trainer's": "`rollout=hf`: its forward with a cache differs from the whole forward",
}
"""Part of a message -> what the table says."""
HEAD = """
# Models

`model.name` is any causal language model of transformers. Two checks before the first step, of four short rows each, refuse
in one line what would otherwise train on wrong log-probs without a word:

- **The trainer.** Prompts of several lengths are padded to the left. A model whose padding reaches its states or positions
  gives other log-probs in another batch: no engine helps, it is refused.
- **The engine `hf`.** It keeps a cache, repeats a prompt's row for all its responses, and drops rows that have ended. Its
  log-probs of a few samples must be the trainer's: within 0.001 nats in float32, and in half precision within what rounding
  explains on this model (measured as for [vLLM](vllm.md)). `rollout=layer_skip` is checked with and without its layers.

The rows of every cache of transformers can be selected: keys and values, whole, compressed or of a sliding window,
convolution and recurrent states, and layers that hold several of them. Only a model that returns its cache can be used.

The lists below are written by `python benchmarks/architectures.py`, which builds a tiny random model of each `model_type` in
`AutoModelForCausalLM` of transformers {version}, in float32 on the CPU, and runs both checks on it; a test compares. A model of
several modalities is trained on its text alone.
"""


def row(found: Finding) -> str:
    """A line of the table of refusals."""
    said = [text for part, text in REASONS.items() if part in found.reason]
    reason = said[0] if said else f"`{re.sub('[`|]', '', found.reason)}`"
    return f"| `{found.kind}` | {found.name} | {reason} |"


def page(findings: Sequence[Finding]) -> str:
    """docs/models.md."""
    by_status = {
        status: list(group)
        for status, group in groupby(sorted(findings, key=_status), key=_status)
    }
    works = ", ".join(f"`{found.kind}`" for found in by_status.pop("works"))
    parts = [HEAD.format(version=transformers.__version__).strip(), "## Works"]
    parts.append(textwrap.fill(works, WIDTH, break_long_words=False, break_on_hyphens=False))
    titles = {"refused": "Refused", "fails": "Fails in its own code", "not built": "Not tried"}
    for status, title in titles.items():
        rows = [row(found) for found in by_status.get(status, [])]
        parts += [f"## {title}", "\n".join(["| model_type | class | reason |", "|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _status(found: Finding) -> str:
    return found.status


def main() -> None:
    """Examine architectures; write the page if all were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="KIND", help="model types")
    chosen = parser.parse_args().only
    findings = survey(chosen or KINDS)
    for found in findings:
        print(f"{found.kind:26} {found.status:10} {found.reason}")
    if not chosen:
        PAGE.write_text(page(findings))


if __name__ == "__main__":
    main()
