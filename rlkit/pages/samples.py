"""The sample browser's data: a bounded choice in the page, the rest in scripts beside it.

`report/samples-index.js` has one line per step, `samples-prompts.js` the steps that each prompt was
trained in, `samples-step-N.js` the responses of a step and `samples-tokens-N.js` what the trainer
used of their tokens. A page loads them when they are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlkit.pages.html import as_json, part
from rlkit.pages.sample_payloads import Payload, is_cut, rounded, step_payload, tokens_payload
from rlkit.runs.completion_files import (
    completion_file,
    completion_steps,
    has_completions,
    has_tokens,
    read_completions,
)
from rlkit.stored.files import write_whole

SCRIPTS, STYLES = ("tokens.js", "samples.js"), ("samples.css",)
"""What a page with samples adds to `document`."""
FOLDER = "report"
INDEX, PROMPTS = "samples-index", "samples-prompts"
EMBEDDED = 150_000
"""Bytes of the samples in a page."""
INDEX_IN_PAGE, TOKENS_IN_PAGE = 20_000, 45_000
"""Of these, at most so many for the index and for the tokens of one group."""
IN_PAGE = (2_000, 512), (800, 512), (300, 256), (100, 64), (100, 8)
"""Characters of a text and responses of a step in the page: the first of these that fit."""
LATEST = 20
"""The best and the worst group of so many last steps are in the page."""
PREVIEW = 60
"""Characters of a prompt in the list of prompts."""
_NAME = re.compile(r"samples-(step|tokens)-(0|[1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The responses to one prompt in a step."""

    prompt_id: str
    preview: str
    reward: float
    """Their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the index says of a step."""

    responses: int
    reward: float
    replayed: int
    oldest: int
    groups: tuple[Group, ...]


def sample_script(run_dir: Path, name: str) -> str | None:
    """The text of report/<name>.js, made from the run folder; None if there is no such part."""
    payload = _payload(run_dir, name)
    return None if payload is None else part(name, payload)


def _payload(run_dir: Path, name: str) -> Payload | None:
    if name in (INDEX, PROMPTS):
        return index_payload(run_dir) if name == INDEX else prompts_payload(run_dir)
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, step = found[1], int(found[2])
    if kind == "step":
        return step_payload(run_dir, step) if has_completions(run_dir, step) else None
    return tokens_payload(run_dir, step) if has_tokens(run_dir, step) else None


def write_samples(run_dir: Path) -> None:
    """Write every script of the samples into <run_dir>/report, and remove those of lost steps.

    Raises UserError if the folder cannot be written.
    """
    folder = run_dir / FOLDER
    names = set(_names(run_dir))
    if not names and not folder.is_dir():
        return
    for name in sorted(names):
        script = sample_script(run_dir, name)
        if script is not None:
            write_whole(folder / f"{name}.js", script, flushed=False)
    for path in folder.glob("samples-*.js"):
        if path.stem not in names:
            path.unlink()


def _names(run_dir: Path) -> Iterator[str]:
    steps = completion_steps(run_dir)
    yield from (INDEX, PROMPTS) if steps else ()
    for step in steps:
        yield f"samples-step-{step}"
        if has_tokens(run_dir, step):
            yield f"samples-tokens-{step}"


def index_payload(run_dir: Path) -> Payload:
    """One entry per step that left responses, in columns."""
    steps = completion_steps(run_dir)
    found = [summary(run_dir, step) for step in steps]
    return {
        "steps": steps,
        "responses": [s.responses for s in found],
        "reward": [rounded(s.reward) for s in found],
        "replayed": [s.replayed for s in found],
        "oldest": [s.oldest for s in found],
        "tokens": [int(has_tokens(run_dir, step)) for step in steps],
    }


def prompts_payload(run_dir: Path) -> Payload:
    """Every prompt: its id and beginning, the steps it was trained in, its mean reward there."""
    found: dict[str, tuple[str, list[int], list[float | int | None]]] = {}
    for step in completion_steps(run_dir):
        for group in summary(run_dir, step).groups:
            _, steps, rewards = found.setdefault(group.prompt_id, (group.preview, [], []))
            steps.append(step)
            rewards.append(rounded(group.reward))
    return {"prompts": [[name, *known] for name, known in found.items()]}


def summary(run_dir: Path, step: int) -> Summary:
    """What the index says of a step; a file that has not changed is read once."""
    path = completion_file(run_dir, step)
    stat = path.stat()
    return _summary(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _summary(path: Path, changed: int, size: int) -> Summary:
    rows = read_completions(path)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row.get("prompt_id")), []).append(row)
    ages = [_number(row.get("age")) for row in rows]
    return Summary(
        responses=len(rows),
        reward=_mean(rows),
        replayed=sum(bool(row.get("replayed", row.get("age"))) for row in rows),
        oldest=int(max(ages, default=0)),
        groups=tuple(
            Group(prompt_id=name, preview=_preview(own[0].get("prompt")), reward=_mean(own))
            for name, own in groups.items()
        ),
    )


def _mean(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> float:
    return sum(_number(row.get("reward")) for row in rows) / max(1, len(rows))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _preview(prompt: object) -> str:
    """The beginning of a prompt; of a chat, of its last turn."""
    if isinstance(prompt, list):
        last = prompt[-1] if prompt else ""
        prompt = last.get("content", "") if isinstance(last, dict) else last
    text = str(prompt)[: 4 * PREVIEW]
    return " ".join(text.split())[:PREVIEW]


def embedded_samples(run_dir: Path) -> Payload | None:
    """What a page holds itself: the last step, and the best and the worst of the last groups.

    None if the run left no responses. At most EMBEDDED bytes as JSON.
    """
    steps = completion_steps(run_dir)
    if not steps:
        return None
    index = index_payload(run_dir)
    out: Payload = {
        "index": index if len(as_json(index)) <= INDEX_IN_PAGE else None,
        "last": steps[-1],
        "picks": [],
        "steps": {},
        "tokens": {},
    }
    with_tokens = [step for step in steps[-LATEST:] if has_tokens(run_dir, step)]
    if with_tokens and with_tokens[-1] == steps[-1]:
        tokens = _one_group_of_tokens(run_dir, steps[-1])
        if len(as_json(tokens)) <= TOKENS_IN_PAGE:
            out["tokens"] = {str(steps[-1]): tokens}
    picks = best_and_worst(run_dir, steps[-LATEST:])
    for longest, most in IN_PAGE:
        filled = out | _chosen(run_dir, steps[-1], picks, longest, most)
        if len(as_json(filled)) <= EMBEDDED:
            return filled
    return out


def best_and_worst(run_dir: Path, steps: list[int]) -> list[tuple[str, int, str]]:
    """The groups of the highest and the lowest mean reward, the last of equals.

    Title, step and prompt of each.
    """
    every = [(g.reward, step, g.prompt_id) for step in steps for g in summary(run_dir, step).groups]
    if not every:
        return []
    best = max(every, key=lambda g: (g[0], g[1]))
    worst = min(every, key=lambda g: (g[0], -g[1]))
    found = [("Best group", *best[1:]), ("Worst group", *worst[1:])]
    return found if best != worst else found[:1]


def _chosen(
    run_dir: Path, last: int, picks: list[tuple[str, int, str]], longest: int, most: int
) -> Payload:
    """The last step and the picked groups, with texts of so many characters."""
    whole = step_payload(run_dir, last, longest, most)
    cut = whole["more"] > 0 or any(is_cut(row["text"]) for row in whole["rows"])
    steps = {str(last): whole | {"partial": cut}}
    for _, step, prompt in picks:
        if str(step) in steps:
            continue
        whole = step_payload(run_dir, step, longest)
        rows = [row for row in whole["rows"] if row["prompt"] == prompt][:most]
        steps[str(step)] = whole | {
            "rows": rows,
            "prompts": {prompt: whole["prompts"].get(prompt, "")},
            "partial": True,
        }
    named = [{"title": title, "step": step, "prompt": prompt} for title, step, prompt in picks]
    return {"steps": steps, "picks": named}


def _one_group_of_tokens(run_dir: Path, step: int) -> Payload:
    """The tokens of the first recorded group of a step."""
    payload = tokens_payload(run_dir, step, most=800)
    rows = {row["row"]: row["group"] for row in step_payload(run_dir, step)["rows"]}
    kept: dict[str, Any] = payload["rows"]
    first = next((rows.get(int(row)) for row in kept), None)
    return payload | {
        "rows": {row: value for row, value in kept.items() if rows.get(int(row)) == first},
        "partial": True,
    }
