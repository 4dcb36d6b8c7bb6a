"""The one exception meant for the user: one line with what is wrong and what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST_LIST = 130
"""Longest list of names, in characters, that a message prints in full."""
ALIKE = 0.6
"""How alike the names of two files must be, 1 = equal, for one to be meant by the other."""
NEAREST = 5
"""How many names of a longer list a message prints."""


class UserError(Exception):
    """A mistake in the command, the configuration, the data or the user's own code.

    The command line prints the message on one line and exits with status 2, without a traceback.
    """


def with_article(word: str) -> str:
    """Return "a loss" or "an anchor"."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def counted(number: int, word: str) -> str:
    """Return "1 step" or "2 steps"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def kind_of(value: object) -> str:
    """What a value is, for a message: "a Tensor", or "None"."""
    return "None" if value is None else with_article(type(value).__name__)


def suggest(word: str, known: Iterable[str], near_enough: float = 0.5) -> str:
    """Return " Did you mean 'x'?" for the nearest known word, or "" if none is near.

    `near_enough` is how alike they must be, 1 = equal.
    """
    near = difflib.get_close_matches(word, list(known), n=NEAREST, cutoff=near_enough)
    swapped = [each for each in near if sorted(each) == sorted(word)]  # letters in another order
    return f" Did you mean '{[*swapped, *near][0]}'?" if near else ""


def suggest_file(name: str, there: Iterable[str]) -> str:
    """`suggest` for a file among others, by what stands before the endings."""
    stems = {each.partition(".")[0]: each for each in there}
    near = difflib.get_close_matches(name.partition(".")[0], stems, n=1, cutoff=ALIKE)
    return f" Did you mean '{stems[near[0]]}'?" if near else ""


def known_names(word: str, known: Sequence[str], how_to_list: str) -> str:
    """Return "Known: a, b": all known names, or the nearest of many and how to list the rest.

    For example `known_names("remx", losses, "`rlkit list loss`")`.
    """
    text = ", ".join(known)
    if len(text) <= LONGEST_LIST:
        return f"Known: {text or 'none'}"
    near = difflib.get_close_matches(word, known, n=NEAREST, cutoff=0.0)
    return f"Known: {', '.join(near)} and {len(known) - len(near)} more, see {how_to_list}"
