"""From tokens to sympy expressions by recursive descent, with a bound on every number and power.

sympy's own parsers evaluate Python; none is used. A text beyond a bound, or with a construction
that has two readings (1/2x, 2 3), is Unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlkit.rewards.math.arithmetic import (
    GREEK,
    LOG_UNIT,
    MAX_DIGITS,
    binomial,
    factorial,
    power,
    rational,
    residue,
    root,
    sympy,
)
from rlkit.rewards.math.calculus import derivative, integral, limit, product, series
from rlkit.rewards.math.cursor import Budget, Expressions
from rlkit.rewards.math.matrices import determinant
from rlkit.rewards.math.names import read_name
from rlkit.rewards.math.spellings import FUNCTIONS
from rlkit.rewards.math.tokens import Unread, tokenize

MAX_DEPTH = 40
CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|", r"\lvert": r"\rvert"}
ROUNDING = {r"\lfloor": (r"\rfloor", sympy.floor), r"\lceil": (r"\rceil", sympy.ceiling)}
OPERATORS = ("*", "/", r"\cdot", r"\times", r"\div", r"\bmod")
FACTOR_ENDS = ("+", "-", *OPERATORS, "!", "^", "%", ",")


class Reader(Expressions):
    """One pass over the tokens of an expression."""

    def __init__(
        self,
        tokens: list[str],
        scope: Mapping[str, Any] | None = None,
        depth: int = 0,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(tokens, scope or {}, budget or Budget())
        self.depth = depth

    def inner(self, tokens: list[str], scope: Mapping[str, Any] | None = None) -> Any:
        """The value of other tokens, all of them, in which names may stand for values."""
        reader = Reader(list(tokens), self.scope | dict(scope or {}), self.depth, self.budget)
        return reader.whole()

    def whole(self) -> Any:
        """The value of all tokens. Raises Unread if one is left."""
        value = self.sum()
        if self.next:
            raise Unread(f"{self.next!r} is left")
        return value

    def sum(self) -> Any:
        """Terms with + and - between them."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("nested too deep")
        terms = [self.term()]
        while self.next in ("+", "-"):
            terms.append(self.term())
        if len(terms) > 1 and r"\bmod" in self.tokens:
            raise Unread("two readings of mod")
        self.depth -= 1
        return sympy.Add(*terms)

    def term(self) -> Any:
        """Factors with a sign before them and *, / or nothing between them."""
        negative = False
        while self.next in ("+", "-"):
            negative ^= self.next == "-"
            self.at += 1
        value = self.factors()
        while self.next in OPERATORS:
            if self.take("/", r"\div"):
                value = value / self.divisor()
            elif self.take(r"\bmod"):
                value = residue(value, self.factors())
            else:
                self.at += 1
                value = value * self.signed_factors()
        return -value if negative else value

    def signed_factors(self) -> Any:
        """Factors that may have a minus before them: 2 * -3."""
        return -self.factors() if self.take("-") else self.factors()

    def divisor(self) -> Any:
        """The one factor after a slash. Raises Unread if a letter follows it: 1/2x."""
        negative = self.take("-")
        value = self.factor()
        after = self.next
        if self.starts_factor():
            if not value.is_Integer or after[0] != "\\" or after[1:] in GREEK:
                raise Unread("two readings of a slash")
            value = value / self.factors()
        return -value if negative else value

    def factors(self) -> Any:
        """Factors side by side; a whole number before a fraction of numbers is a mixed number."""
        start = self.at
        value = self.factor()
        whole = self.at == start + 1 and self.tokens[start].isdigit()
        while self.starts_factor():
            fraction = self.next == r"\frac"
            if self.next[0].isdigit() and not self.may_precede_digits(start, value):
                raise Unread("numbers side by side")
            start = self.at
            factor = self.factor()
            if fraction and whole and factor.is_Rational and 0 < factor < 1:
                value = value + factor
            else:
                value = value * factor
            whole = False
        return value

    def may_precede_digits(self, start: int, value: Any) -> bool:
        """Whether digits after the factor from `start` on are a factor too: not in 2 3 or x2."""
        bracket = self.tokens[self.at - 1] in (")", "]", "}") and not value.is_number
        return bracket or "^" in self.tokens[start : self.at]

    def starts_factor(self) -> bool:
        """Whether another factor begins here."""
        token = self.next
        closers = (")", "]", "}", r"\}", r"\rvert", r"\rfloor", r"\rceil")
        if token == "|":
            return False
        return bool(token) and token not in FACTOR_ENDS and token not in closers

    def factor(self) -> Any:
        """An atom with what follows it: primes are names, ! and ^ are work."""
        value = self.atom()
        while self.next in ("!", "^"):
            if self.take("!"):
                if self.next == "!":
                    raise Unread("double factorial")
                value = factorial(value)
            else:
                self.at += 1
                value = self.raised(value)
        return value

    def raised(self, base: Any) -> Any:
        """A base with the exponent that stands here; ^circ is degrees."""
        if self.take(r"\circ") or self.take_group(r"\circ"):
            return base * sympy.pi / 180
        exponent = self.argument(power=True)
        if self.next == "^":
            self.at += 1
            exponent = self.raised(exponent)
        return power(base, exponent)

    def argument(self, power: bool = False) -> Any:
        r"""What ^ and \frac take: a group, or one sign; a digit of a longer number for \frac."""
        if self.take("{"):
            return self.closed("}")
        if power and self.next in ("-", "+"):
            negative = self.take("-") or not self.take("+")
            return -self.atom() if negative else self.atom()
        token = self.next
        if not power and token.isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.atom()

    def closed(self, closer: str) -> Any:
        """The expression up to a closing bracket."""
        value = self.sum()
        self.expect(closer)
        return value

    def atom(self) -> Any:
        """A number, a name, a bracket, or a command with its arguments."""
        token = self.next
        self.at += 1
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(token)
        if token in CLOSING:
            value = self.closed(CLOSING[token])
            return sympy.Abs(value) if token in ("|", r"\lvert") else value
        if token in ROUNDING:
            closer, function = ROUNDING[token]
            return function(self.closed(closer))
        if token[:1] == "\\" and token[1:] in FUNCTIONS and token != r"\sqrt":
            return self.function(token[1:])
        if token in COMMANDS:
            return COMMANDS[token](self)
        reader = {r"\frac": self.fraction, r"\sqrt": self.square_root, r"\binom": self.choose}
        return reader[token]() if token in reader else read_name(self, token)

    def number(self, literal: str) -> Any:
        r"""A literal, with repeating digits under \overline behind it."""
        if self.next == "_":
            raise Unread("numeral with a base")
        if self.next == r"\overline" and "." in literal:
            group = self.tokens[self.at + 1 : self.at + 4]
            if len(group) == 3 and group[1].isdigit() and len(group[1]) < MAX_DIGITS:
                self.at += 4
                places = len(literal.partition(".")[2])
                period = sympy.Rational(int(group[1]), 10 ** len(group[1]) - 1)
                return rational(literal) + period / 10**places
        return rational(literal)

    def fraction(self) -> Any:
        r"""\frac{a}{b}; a derivative is a name."""
        if (name := derivative(self)) is not None:
            return name
        top = self.argument()
        return top / self.argument()

    def choose(self) -> Any:
        r"""\binom{n}{k}."""
        top = self.argument()
        return binomial(top, self.argument())

    def square_root(self) -> Any:
        r"""\sqrt{a} and \sqrt[n]{a}."""
        degree = self.closed("]") if self.take("[") else sympy.Integer(2)
        return root(self.argument() if self.next != "(" else self.atom(), degree)

    def function(self, name: str) -> Any:
        r"""sin, log and the like, with \sin^2 x and \log_b x; \sin^{-1} is the inverse."""
        base = None
        if name == "log" and self.take("_"):
            base = self.argument()
        exponent = self.argument(power=True) if self.take("^") else None
        value = self.operand()
        inverse = exponent == -1
        if inverse and name not in ("sin", "cos", "tan"):
            raise Unread("inverse function")
        result = getattr(sympy, f"a{name}" if inverse else name)(value)
        if name == "log":
            result = result / (LOG_UNIT if base is None else sympy.log(base))
        return result if exponent is None or inverse else power(result, exponent)

    def operand(self) -> Any:
        r"""What a function is applied to: a bracket, or the factors up to the next function."""
        if self.next in CLOSING or (self.next[:1] == "\\" and self.next[1:] in FUNCTIONS):
            value = self.factor()
            if self.next == "(":
                raise Unread("two brackets after a function")
            return value
        value = self.factor()
        while self.starts_factor() and self.next not in CLOSING and self.next[1:] not in FUNCTIONS:
            value = value * self.factor()
        return value


COMMANDS: dict[str, Callable[[Reader], Any]] = {
    r"\sum": series,
    r"\prod": product,
    r"\lim": limit,
    r"\int": integral,
    r"\begin{vmatrix}": determinant,
}


def expression(tokens: list[str]) -> Any:
    """The sympy expression of all tokens. Raises Unread."""
    value = Reader(list(tokens)).whole()
    if value.has(sympy.nan, sympy.zoo):
        raise Unread("no number")
    return value


def expression_of(text: str) -> Any:
    """The expression of a cleaned text. Raises Unread."""
    return expression(tokenize(text))
