"""A position in a list of tokens, with the steps that a parser takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from rlkit.rewards.math.tokens import Unread

MAX_TERMS = 1000
"""Terms of all sums and products of an answer together."""


class Budget:
    """The terms that may still be worked out."""

    def __init__(self) -> None:
        self.terms = MAX_TERMS

    def spend(self, terms: int) -> None:
        """Raises Unread if so many are not left."""
        self.terms -= terms
        if self.terms < 0:
            raise Unread("too many terms")


class Cursor:
    """Tokens and the place of the next one."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    @property
    def next(self) -> str:
        """The next token; "" at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> bool:
        """Step over the next token if it is one of these."""
        found = self.next in wanted and self.at < len(self.tokens)
        self.at += found
        return found

    def expect(self, token: str) -> None:
        """Step over this token. Raises Unread if another one stands here."""
        if not self.take(token):
            raise Unread(f"{token} expected")

    def take_group(self, token: str) -> bool:
        """Step over {token}."""
        found = self.tokens[self.at : self.at + 3] == ["{", token, "}"]
        self.at += 3 * found
        return found

    def group(self) -> list[str]:
        """Step over a group or one token; the tokens of it."""
        if not self.take("{"):
            self.at += 1
            return self.tokens[self.at - 1 : self.at]
        start, depth = self.at, 1
        while depth and self.next:
            depth += (self.next == "{") - (self.next == "}")
            self.at += 1
        return self.tokens[start : self.at - 1]

    def raw(self) -> str:
        """The tokens of a group or the next one, unread."""
        return " ".join(self.group()).replace("\\text:", "")


class Expressions(Cursor, ABC):
    """A cursor that reads expressions, in which names of `scope` stand for values."""

    def __init__(self, tokens: list[str], scope: Mapping[str, Any], budget: Budget) -> None:
        super().__init__(tokens)
        self.scope = dict(scope)
        self.budget = budget

    @abstractmethod
    def term(self) -> Any:
        """The term that stands here."""

    @abstractmethod
    def closed(self, closer: str) -> Any:
        """The expression up to a closing bracket."""

    @abstractmethod
    def inner(self, tokens: list[str], scope: Mapping[str, Any] | None = None) -> Any:
        """The value of other tokens, all of them, in which more names stand for values."""
