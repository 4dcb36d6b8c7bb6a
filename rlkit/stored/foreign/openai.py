"""OpenAI-style lines: a request's messages and its choices, with log-probs of their tokens.

    {"messages": [...], "choices": [{"message": {"content": "..."}, "finish_reason": "stop",
     "logprobs": {"content": [{"token": "...", "logprob": -0.1}, ...]}, "reward": 1.0}, ...]}

`messages` and `choices` may also stand in "request" and "response" ("body" in a batch file). A
choice's reward stands in the choice; for a single choice also in the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.stored.foreign.record import Record, column, json_lines, number, prompt_of


def records(path: Path, reward: str | None) -> Iterator[Record]:
    """The responses of a file. `reward` names the key of the reward; None = "reward"."""
    name = reward or "reward"
    for line, (place, row) in enumerate(json_lines(path)):
        asked, answered = _body(row, "request"), _body(row, "response")
        given = "messages" if "messages" in asked else "prompt"
        prompt = prompt_of(column(asked, given, place), given, place)
        for choice in column(answered, "choices", place):
            logprobs = (choice.get("logprobs") or {}).get("content")
            value = choice.get(name, row.get(name))
            message = choice.get("message") or {}
            text = message.get("content", choice.get("text"))
            if not isinstance(text, str):
                raise UserError(f"{place}: a choice has no text")
            if value is None:
                raise UserError(f"{place}: a choice has no '{name}'; add it, or name another key")
            yield Record(
                place=place,
                group=line,
                prompt=prompt,
                response=text,
                reward=number(value, name, place),
                tokens=[each["token"] for each in logprobs] if logprobs else None,
                behavior_logp=[float(each["logprob"]) for each in logprobs] if logprobs else None,
                finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
            )


def _body(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What holds the messages or the choices: the line itself, or a part of it."""
    inner = row.get(name)
    if not isinstance(inner, Mapping):
        return row
    body = inner.get("body")
    return body if isinstance(body, Mapping) else inner
