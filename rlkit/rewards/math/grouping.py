"""Which of several answers to one problem are the same answer, for votes over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlkit.rewards.math.extract import answer_of, spoken

MAX_BARE = 200
"""Most characters of a completion that is as a whole its answer."""

Same = Callable[[Sequence[tuple[str, str]]], Sequence[bool]]
"""Judges pairs of answers: whether the two of each pair are equal."""


def final_answer(completion: str, prompt: str = "") -> str | None:
    """The answer that a completion gives as `math` finds it, as text; None if it gives none."""
    text = spoken(completion, prompt).strip()
    answer = answer_of(text)
    if answer is None and len(text) <= MAX_BARE and "\n" not in text:
        answer = text
    return (answer or "").strip() or None


def classes(groups: Sequence[Sequence[str | None]], same: Same) -> list[list[int | None]]:
    """For each group of answers the class of each: equal answers share one, None has none.

    Classes count from 0 in the order in which they first occur. An answer belongs to the first
    class whose first answer it equals. All groups are judged together, one class of each a call.
    """
    waiting = [list(dict.fromkeys(a for a in group if a is not None)) for group in groups]
    known: list[dict[str, int]] = [{} for _ in groups]
    number = 0
    while any(waiting):
        pairs = [(rest[0], other) for rest in waiting for other in rest[1:]]
        marks = iter(same(pairs) if pairs else ())
        for i, rest in enumerate(waiting):
            equal = {answer for answer in rest[1:] if next(marks)} | {*rest[:1]}
            known[i] |= dict.fromkeys(equal, number)
            waiting[i] = [answer for answer in rest if answer not in equal]
        number += 1
    return [
        [None if answer is None else found[answer] for answer in group]
        for group, found in zip(groups, known, strict=True)
    ]
