r"""From LaTeX or plain text to tokens, over a closed alphabet: what is not in it is not read.

Nothing of a text is ever evaluated: tokens are numbers, letters, words and known commands.
"""

from __future__ import annotations

import re

from rlkit.rewards.math.spellings import PLAIN_WORDS, SAME, SIGNS, one_spelling, plain_signs

MAX_CHARS = 2000
MAX_TOKENS = 800


class Unread(ValueError):
    """A text that is not an answer of a known form; it is compared as text."""


LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|qquad|quad|rm)(?![a-zA-Z])"
    r"|(?<!\\)\\[;:, !]|~"
)
DOUBLED = re.compile(r"\\\\(?=(?:[dt]?frac|sqrt|pi|text|times|cdot|boxed|infty|left|right)\b)")
SPACED_THOUSANDS = re.compile(
    r"(?<![0-9.])([0-9]{1,3})((?:\s*(?:\{,\s*\}|\\,|,?\\!)\s*[0-9]{3})+)(?![0-9])"
)
TEXT = r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{([^{}]*)\}"
TOKEN = re.compile(
    rf"\s*(?:(?P<text>{TEXT})"
    r"|(?P<set>\\mathbb\s*\{?[A-Z]\}?)"
    r"|(?P<matrix>\\(?:begin|end)\{[pv]matrix\})"
    r"|(?P<command>\\[a-zA-Z]+)"
    r"|(?P<escaped>\\[{}|%$]|\\\\)"
    r"|(?P<thousands>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9.]))?)"
    r"|(?P<word>[A-Za-z]{2,})"
    r"|(?P<sign>\*\*|!=|<=|>=|[A-Za-z+\-*/^_()\[\]{},;:=<>|!%&'$£€]))"
)
OPENERS = ("(", "[", r"\{")
CLOSERS = (")", "]", r"\}")


def strip_math(text: str) -> str:
    r"""A text without $, \( \) or \[ \] around it and without a full stop after it."""
    text = plain_signs(text).strip()
    while True:
        before = text
        text = re.sub(r"(?<![\\.])\.$", "", text).strip()
        for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            inner = text[len(left) : -len(right)]
            wrapped = len(text) > len(left + right) and text.startswith(left)
            if wrapped and text.endswith(right) and left not in inner and inner[-1:] != "\\":
                text = inner.strip()
        if text == before:
            return text


def clean(text: str) -> str:
    """A text with one spelling for layout, unicode signs and grouped thousands."""
    text = one_spelling(DOUBLED.sub(r"\\", strip_math(text)))
    text = re.sub(r"(?<!\\)\$((?:[^$\\]|\\.)*)(?<!\\)\$", r" \1 ", text)
    text = re.sub(r"\\(?:boxed|fbox)\s*(?=\{)", "", text)
    text = LAYOUT.sub(" ", SPACED_THOUSANDS.sub(joined, text))
    if re.fullmatch(r"-?[0-9]{1,3}(?: [0-9]{3})+", text.strip()):
        text = text.replace(" ", "")
    mixed = re.fullmatch(r"\s*(-?[0-9]+) ([0-9]+)/([0-9]+)\s*", text)
    return rf"{mixed[1]}\frac{{{mixed[2]}}}{{{mixed[3]}}}" if mixed else text


def joined(match: re.Match[str]) -> str:
    """The digits of a grouped number."""
    return re.sub(r"[^0-9]", "", match[0])


def canonical(text: str) -> str:
    """The text by which answers of no known form are compared: one spelling, blanks that matter."""
    text = re.sub(TEXT, lambda match: f" {match[1]} ", clean(text)).replace("$", "")
    text = " ".join(text.split())
    return re.sub(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", "", text)


def tokenize(text: str) -> list[str]:
    r"""The tokens of a cleaned text. Words of text are "\text:...", other words themselves.

    Raises Unread for a sign outside the alphabet and for a text that is too long.
    """
    if len(text) > MAX_CHARS:
        raise Unread("too long")
    tokens: list[str] = []
    position, depth = 0, 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise Unread(f"sign {text[position]!r}")
        position = match.end()
        kind = str(match.lastgroup)
        token = match[kind]
        if kind == "thousands" and depth:
            token = token.partition(",")[0]
            position = match.start(kind) + len(token)
        tokens += spelled(kind, token, match[2] or "", tokens)
        depth += (tokens[-1] in OPENERS) - (tokens[-1] in CLOSERS)
    if len(tokens) > MAX_TOKENS:
        raise Unread("too long")
    return tokens


def spelled(kind: str, token: str, content: str, before: list[str]) -> list[str]:
    """The tokens for one match, in the spelling that the readers know."""
    if kind == "text":
        return spelled_text(" ".join(content.split()), before)
    if kind == "word":
        return [PLAIN_WORDS.get(token.lower(), token)]
    if kind == "thousands":
        return [token.replace(",", "")]
    if kind == "command":
        name = SAME.get(token[1:], token[1:])
        return [name if name in "[]():<>|" else f"\\{name}"]
    if kind == "set":
        return [rf"\mathbb{{{token.rstrip('}')[-1]}}}"]
    return [SIGNS.get(token, token)]


def spelled_text(words: str, before: list[str]) -> list[str]:
    r"""The tokens for the words of a \text{...}."""
    plain = words.strip(" ,").lower()
    if plain in PLAIN_WORDS:
        return [PLAIN_WORDS[plain]]
    choice = re.fullmatch(r"\(([A-Z])\)", words)
    words = choice[1] if choice else words
    number = re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", words)
    follows = bool(before) and (before[-1][0].isdigit() or before[-1] in ("}", ")"))
    if number or (len(words) == 1 and words.isalpha() and (words in "ei" or not follows)):
        return ["-", words[1:]] if words.startswith("-") else [words]
    return [f"\\text:{words}"]


def bracket_step(token: str) -> int:
    """1 for a bracket that opens, -1 for one that closes, else 0."""
    opens = token in (*OPENERS, "{") or token.startswith(r"\begin")
    closes = token in (*CLOSERS, "}") or token.startswith(r"\end")
    return opens - closes


def split(tokens: list[str], separators: tuple[str, ...]) -> list[list[str]]:
    """The parts between separators that stand outside every bracket."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += bracket_step(token)
        if depth == 0 and token in separators:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
