"""A position in a list of tokens, with the steps that a parser takes."""

from __future__ import annotations

from rlkit.rewards.math.tokens import Unread


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
