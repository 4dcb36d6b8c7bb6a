"""Run folders with responses and tokens, written without a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.runs.token_file import token_file, write_tokens

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script><!--",
    "<img src=x onerror='window.hacked = 3'>",
    "{{7*7}} ${window.hacked = 4} <%= 1 %> {% raw %}",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{LEFT-TO-RIGHT ISOLATE} \x1b[31m \u2028",
    "x" * 1_000_000,
]


def response(step: int, name: str = "p0", **changes: Any) -> dict[str, Any]:
    """A line of completions/step-N.jsonl."""
    given = {
        "prompt_id": name,
        "group": 0,
        "sample_id": 10,
        "prompt": f"What is {name}?",
        "response": "The answer is 4.",
        "tokens": 3,
        "source": "policy",
        "made_at": step,
        "age": 0,
        "replayed": False,
        "finish_reason": "stop",
        "reward": 1.0,
        "advantage": 0.5,
        "rewards": {"exact": 1.0},
    }
    return given | changes


def record(row: int, pieces: Sequence[str], **changes: Any) -> dict[str, Any]:
    """A row of a token file; its numbers count up from 0.25."""
    count = len(pieces)
    numbers = [0.25 * (i + 1) for i in range(count)]
    given = {
        "step": 1,
        "row": row,
        "prompt_id": "p0",
        "group": 0,
        "sample_id": 10,
        "passes": 1,
        "skipped": False,
        "rewards": [("exact", 1.0)],
        "token_ids": list(range(count)),
        "pieces": list(pieces),
        "loss_mask": [True] * count,
        "policy_version": [1] * count,
        "advantages": [0.5] * count,
        "behavior_logp": [-number for number in numbers],
        "logp": [-2 * number for number in numbers],
        "ratio": [1.0 + 0.1 * number for number in numbers],
        "clipped": [i == 1 for i in range(count)],
    }
    return given | changes


def write_step(
    run: Path,
    step: int,
    rows: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the files of a step."""
    folder = run / "completions"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"step-{step}.jsonl").write_text(lines, encoding="utf-8")
    if records:
        write_tokens(token_file(run, step), records)


def hostile_run(run: Path) -> None:
    """Responses, prompts, roles, ids and tokens that a page must not believe."""
    rows = [
        response(1, f"p{i}{text[:40]}", group=i, prompt=[{"role": text[:80], "content": text}])
        | {"response": text, "source": text[:30], "finish_reason": text[:30]}
        | {"rewards": {text[:30]: 1.0}}
        for i, text in enumerate(HOSTILE)
    ]
    records = [record(i, [text, "", text[:9]]) for i, text in enumerate(HOSTILE)]
    write_step(run, 1, rows, records)
