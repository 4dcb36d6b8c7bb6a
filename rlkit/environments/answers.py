"""From a turn that was read and the answers to its calls to what the policy sees next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.environments.host import LONGEST
from rlkit.interfaces import INVALID_CALL, Observation, Said

Answer = Mapping[str, Any]
"""What became of a call: "text", "failed" and "late"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers to the calls of a turn, in their order."""

    texts: Sequence[Answer] = ()
    done: bool = False
    """Whether the environment says that the episode is over."""
    lost: bool = False
    """Whether its state is gone, and the episode with it."""
    died: bool = False
    """Whether a process died of itself."""


def read_answers(value: Any, count: int) -> Answers | None:
    """The answers to `count` calls that another process wrote; None if it wrote anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("answers"), list):
        return None
    texts, done = value["answers"], value.get("done")
    kinds = {"text": str, "failed": bool, "late": bool}
    right = all(
        isinstance(each, dict) and {k: type(v) for k, v in each.items()} == kinds for each in texts
    )
    if len(texts) != count or not right or not isinstance(done, bool):
        return None
    return Answers(
        texts=[each | {"text": writable(each["text"][:LONGEST])} for each in texts], done=done
    )


def refused(text: str) -> Answer:
    """The answer to a call that is not run."""
    return {"text": str({"error": text}), "failed": True, "late": False}


def answered(
    said: Said, most: int | None, run: Callable[[Sequence[Mapping[str, Any]]], Answers]
) -> Observation:
    """Run a turn's calls and say what comes back; a turn that calls nothing ends the episode.

    A call beyond the first `most` is not run, and a call that could not be read cannot be; the
    policy is told so in the place of an answer.
    """
    counts = {"unparsable": len(said.errors)}
    if not said.calls and not said.errors:
        counts["void_turns"] = int(not said.content.strip())
        return Observation(said=said.message, done=True, counts=counts)
    calls = said.calls[:most]
    result = Answers()
    if calls:
        result = run([{"name": call.name, "arguments": dict(call.arguments)} for call in calls])
    texts = list(result.texts)
    texts += [refused(f"not run: at most {most} calls a turn")] * (len(said.calls) - len(calls))
    counts["calls"] = len(said.calls)
    counts["failed_calls"] = sum(bool(text["failed"]) for text in texts)
    counts["timeouts"] = sum(bool(text["late"]) for text in texts)
    counts["lost"] = int(result.died)
    if result.lost:
        return Observation(said=said.message, done=True, finish_reason="tool_error", counts=counts)
    messages = [
        message(call.name, text["text"], call.id)
        for call, text in zip(said.calls, texts, strict=True)
    ]
    identified = any(call.id is not None for call in said.calls)
    for i, error in enumerate(said.errors):
        number = f"call{len(messages) + i:05d}" if identified or not said.calls else None
        messages.append(message(INVALID_CALL, refused(error)["text"], number))
    if result.done:
        return Observation(said=said.message, done=True, counts=counts)
    return Observation(said=said.message, messages=messages, counts=counts)


def message(name: str, text: str, number: str | None) -> dict[str, Any]:
    """A tool's message, as in TRL, with the id of the call if it has one."""
    out: dict[str, Any] = {"role": "tool", "name": name, "content": text}
    written: dict[str, Any] = writable(out if number is None else out | {"tool_call_id": number})
    return written


def writable(value: Any) -> Any:
    """A JSON value without lone surrogates, which JSON can hold and no file or tokenizer can."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {writable(key): writable(each) for key, each in value.items()}
    return [writable(each) for each in value] if isinstance(value, list) else value
