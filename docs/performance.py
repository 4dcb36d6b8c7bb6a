"""Write docs/performance.md from benchmarks/results/*.json: `python docs/performance.py`.

The page holds the tables that the scripts made, and says of what was not measured how to do it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).resolve().parent
BENCHMARKS = DOCS.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
PAGE = DOCS / "performance.md"
sys.path += [str(BENCHMARKS)] if str(BENCHMARKS) not in sys.path else []

import calculator  # noqa: E402

MADE = "Written by `python docs/performance.py` from `benchmarks/results/`."


class Section(NamedTuple):
    """What a script measures."""

    script: str
    """Its name, and that of its results."""
    title: str
    about: str
    how: str
    """How to measure it."""
    missing: Callable[[Mapping[str, Any]], list[str]] = lambda cases: []
    """What of it was not run, in words, from the cases of its results."""


SECTIONS = (
    Section(
        "vs_trl",
        "GRPO beside TRL",
        "The same training on both sides: model, prompts in the same order, reward, loss, clip, "
        "learning rate, optimizer, float32, one update per batch. Each run is a process of its "
        "own, the two take turns, and the first step is not counted. Cells are medians of the "
        "runs with their range; the ratio is that of each pair. TRL is timed from the beginning of "
        "a step's first micro-batch, without its data loader.",
        "`python benchmarks/vs_trl.py --case llama1m smollm2 smollm2_long --check`",
    ),
    Section(
        "limits",
        "How near to the machine",
        "An update of SmolLM2-135M beside the rate of a large matrix product, counting only what "
        "must be computed; one row's next token beside the memory bandwidth, counting only the "
        "weights.",
        "`python benchmarks/limits.py`",
    ),
    Section(
        "generation",
        "Generation beside `model.generate`",
        "Tokens per second of `rollout=hf` and of transformers' own loop: responses of a fixed "
        "length to the same prompts, in one batch, the two in turn. A cell is the median of the "
        "repeats with its range. Each ratio is that of two neighboring repeats, rlkit's over "
        "transformers'; above 1 rlkit is faster. Processor time is shown too, because other work "
        "on the machine changes it less. Decoding one row reads every weight once per token: its "
        "share is that rate over the rate at which a large tensor is summed.",
        "`python benchmarks/generation.py`",
    ),
    Section(
        "logprob",
        "Log-probs without full logits",
        "From hidden states and output weights to the log-prob and entropy of each token, and back "
        "to the gradients of both: with full logits in float32, in rlkit's blocks of tokens and "
        "vocabulary, and with TRL's chunked function. Memory is the peak above what was held "
        "before, gradients included, in a process of its own for each; seconds are medians of "
        "runs in turn. A ratio is rlkit's value over the other's; below 1 rlkit needs less. Of the "
        "two targets of the seconds, the first is for the ratio to full logits and the second for "
        "that to TRL.",
        "`python benchmarks/logprob.py`",
    ),
    Section(
        "overhead",
        "What a step costs besides its work",
        "Where the time of a training step of the embedded model goes, by the timers of "
        "metrics.jsonl. `rest` is what no timer counts. The target is for all that is not "
        "generation, forward or update. The model is tiny, so a real run spends a smaller share "
        "on it. The second table splits that part by function, from one more run under cProfile.",
        "`python benchmarks/overhead.py`",
    ),
    Section(
        "scaling",
        "How steps and buffers grow",
        "Steps: runs on a small random model in which one thing is varied. A line is fitted "
        "through the measured values, and the distance is the largest one between a value and the "
        "line, as a share of the value; near 0 the cost is linear. The first three series vary "
        "the tokens of a step; group size and replayed share vary at the same number of responses. "
        "Buffers: processor time of all calls that a step makes on a buffer, by the groups it "
        "holds, as a median of steps. A flat buffer takes as long with the most groups as with the "
        "fewest; the difference is shown. Memory is what the buffer keeps besides the groups.",
        "`python benchmarks/scaling.py`",
    ),
    Section(
        "off_policy",
        "What reuse saves",
        "Seconds and generated tokens until the embedded model reaches a held-out score, as "
        "generation grows dearer. Ratio 4 means that generating GRPO's batch takes four times as "
        "long as the rest of its step. The seconds of generation are computed from its tokens, and "
        "the others are measured. Waiting for an evaluation costs nothing.",
        "`python benchmarks/off_policy.py`",
    ),
    Section(
        "calculator",
        "A tool that the model learns to call",
        "Held-out pass@1 of the embedded model on sums that it cannot add, before and after "
        "training by `environment=calculator`, and by `+experiment=without_calculator` on the same "
        "problems and bases ([turns.md](turns.md)). A seed is that of base and run.",
        "`python benchmarks/calculator.py`",
        calculator.missing,
    ),
)


def cell(text: str) -> str:
    """Text in a table's cell."""
    return text.replace("|", "\\|")


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(cell, cells)) + " |"


def table(found: Mapping[str, Any]) -> str:
    """A table of the results under its title and what it was measured with."""
    about = "\n".join(f"- {line}" for line in found["about"])
    lines = [row(found["head"]), "|" + "---|" * len(found["head"]), *map(row, found["rows"])]
    return "\n\n".join([f"### {found['title']}", about, "\n".join(lines)])


def results_of(each: Section, results: Path) -> list[dict[str, Any]]:
    """What the script has written, to one or more files that begin with its name."""
    return [json.loads(path.read_text()) for path in sorted(results.glob(f"{each.script}*.json"))]


def section(each: Section, results: Path) -> str:
    """A script's section: its tables, what they lack, or that there are none yet."""
    files = results_of(each, results)
    tables = [one for file in files for one in file.get("tables", [])]
    body = "\n\n".join(map(table, tables)) or f"Not measured yet: {each.how}."
    cases = {name: case for file in files for name, case in file.get("cases", {}).items()}
    if lacks := each.missing(cases) if tables else []:
        body += f"\n\n**Not measured yet**, {each.how}:\n\n" + "\n".join(
            f"- {line}" for line in lacks
        )
    return f"## {each.title}\n\n{each.about}\n\n{body}"


def gpus(results: Path) -> str:
    """A sentence on what was measured on a GPU."""
    files = [file for each in SECTIONS for file in results_of(each, results)]
    cases = [case for file in files for case in file.get("cases", {}).values()]
    count = sum("device" in case.get("machine", {}) for case in cases)
    place = "[benchmarks/gpu.md](../benchmarks/gpu.md)"
    return f" Cases measured on a GPU: {count} of {len(cases)}; {place} lists the commands for one."


def page(results: Path = RESULTS) -> str:
    """docs/performance.md."""
    lead = (
        f"# Performance\n\n{MADE} Every measurement names its machine, versions and number of "
        f"runs, and says which targets were missed.{gpus(results)}"
    )
    return "\n\n".join([lead, *(section(each, results) for each in SECTIONS)]) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
