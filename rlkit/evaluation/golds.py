"""What counts as the right answer to a benchmark's problem, read from its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlkit.errors import UserError

Row = Mapping[str, Any]
Key = Literal["original", "remix"]
"""Whose answers: the benchmark's own, or those that ReMix and DeepScaleR are marked with."""
KEYS: tuple[Key, ...] = ("original", "remix")
MINERVA_TOLERANCE = 0.01
"""The error within which arXiv:2206.14858 takes two numbers as equal, here relative to the gold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """The answers that are right."""

    accepted: tuple[str, ...]
    """Each of them is right; the first one is shown."""
    tolerance: float = 0.0
    """Relative error that a real number may have."""


ReadGold = Callable[[Row, str, Key], Gold]
"""From a row, its answer as text, and the key."""


def as_written(row: Row, answer: str, key: Key) -> Gold:
    """The answer as it stands, and nothing else."""
    return Gold(accepted=(answer,))


def behind_hashes(row: Row, answer: str, key: Key) -> Gold:
    """GSM8K: the number behind "####", without commas; the whole text if there is no "####"."""
    return Gold(accepted=(answer.rpartition("####")[2].strip().replace(",", ""),))


def minerva(row: Row, answer: str, key: Key) -> Gold:
    """Minerva: `meta.answer_latex` for a number in e-notation, or the key's `meta.remix_answers`.

    Raises UserError for the key "remix" if the row does not have it.
    """
    listed = lookup(row, "remix_answers")
    if key == "remix" and not listed:
        raise UserError(
            "the key 'remix' needs the column meta.remix_answers, a list of the answers it takes; "
            "use a file that has it, or --key original"
        )
    original = str(lookup(row, "answer_latex") or answer).replace("np.", "\\")
    accepted = tuple(map(str, listed)) if key == "remix" else (original,)
    return Gold(accepted=accepted, tolerance=MINERVA_TOLERANCE)


def olympiadbench(row: Row, answer: str, key: Key) -> Gold:
    r"""OlympiadBench: several answers are one list; `error` is the absolute error it allows.

    With the unit % the number counts with and without the sign: \boxed{4.2} and \boxed{4.2\%}.
    """
    unit, error = (lookup(row, name) for name in ("unit", "error"))
    text = answer.strip()
    plain = text.strip("$").strip()
    accepted = (text, plain + r"\%") if unit == "%" else (text,)
    return Gold(accepted=accepted, tolerance=relative(plain, error))


def relative(gold: str, error: object) -> float:
    """An absolute error as a share of a number; 0 if there is none or the gold is no number."""
    try:
        share = float(str(error)) / abs(float(gold))
    except (ValueError, ZeroDivisionError):
        return 0.0
    return share if 0 < share < 1 else 0.0


def lookup(row: Row, name: str) -> Any:
    """A column, or one of the columns inside `meta`; None if it does not exist."""
    meta = row.get("meta")
    return meta.get(name) if isinstance(meta, Mapping) and name in meta else row.get(name)


def joined(answer: object) -> object:
    """A list of answers as one text, as the hub's OlympiadBench has them; others unchanged."""
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return ", ".join(map(str, answer))
    return answer
