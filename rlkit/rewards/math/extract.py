r"""Where a completion gives its answer: in its last box, else in a sentence that says so.

Only what a reader would take for the final answer counts. Thinking, copies of the prompt, boxes
before the last one, and numbers that merely occur in the text do not.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from rlkit.rewards.math.prose import DOUBT, SENTENCE_END, stated

CLOSED_THINKING = re.compile(r"</(?:think|thinking|thought|reasoning|scratchpad)>", re.I)
OPEN_THINKING = re.compile(r"<(?:think|thinking|thought|reasoning|scratchpad)>", re.I)
SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|</s>")
MAX_GAP = 200
MIN_ECHO = 20
"""A prompt of at least this many characters is cut out of a completion that repeats it."""
NAME_BEFORE = r"([A-Za-z](?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]{1,9}\}))?)\s*="
NAMED_BOX = re.compile(rf"(?<![A-Za-z0-9\\_^}}]){NAME_BEFORE}\s*$")
BETWEEN_BOXES = re.compile(
    r"(?:[\s,;$]|\\[()\[\],;:! ]|\\q?quad|\band\b|\bor\b|\\text\s*\{\s*(?:and|or)\s*\})*"
)
COUNTED_BOX = re.compile(r"\s*\$?\s*([a-z]{3,15})\s*,?\s+and\s+\$?\s*")
GLUED_BEFORE = re.compile(
    r"(?:[=$(\[{,]\s*-|[+/^]|\\(?:cdot|times|pm|mp|sqrt|div|neq?|not)|!=|\bnot)\s*$|[-0-9]$"
)
GLUED_AFTER = re.compile(
    r"\s*(?:[\^_!/+]|\*(?!\*)|-\s*[0-9\\]|\\(?:cdot|times|div|pi|sqrt|d?frac|pm|mp|circ)\b)"
    r"|[a-zA-Z0-9(]|\s+(?:hundred|thousand|million|billion|trillion|dozen)\b"
)
PERCENT_AFTER = re.compile(r"\s*\$?\s*(?:\\?%|(?:percent|pct)\b)")
MARKER = re.compile(
    r"####|\banswer(?: to (?:the|this) (?:question|problem))?"
    r"(?:(?:,?\s+(?:then|thus|therefore|hence),?)?\s+(?:is|are)\b\s*:?|\s*[:=])"
    r"|\banswer\b(?=\s*(?:\$|\\\(|\\\[))",
    re.I,
)
HEADING = re.compile(r"\bfinal answer(?:\*\*)?\s*:", re.I)
SPAN = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\$((?:[^$\\]|\\.){1,2000})\$"
    r"|\\\(((?:(?!\\\().){1,2000}?)\\\)|\\\[((?:(?!\\\[).){1,2000}?)\\\]",
    re.S,
)
"""A formula between delimiters, short enough to keep the search linear."""
STATES = re.compile(
    r"(?:\b(?:is|are|get|equals)(?:\s+(?:therefore|thus|then|simply|just|exactly))?|[:=])\s*$", re.I
)
DOUBTS = re.compile(
    r"\b(?:not|or|nor|neither|either|maybe|perhaps|whether|if|asked?|unless|but|hundred|thousand"
    r"|million|billion|trillion|dozen|percent|base|times|plus|minus|squared|cubed)\b|n't|[0-9$\\?%]",
    re.I,
)
FILLER = re.compile(
    r"(?:(?:therefore|thus|hence|then|simply|just|exactly|equal to|given by),?\s+)+", re.I
)
LEADING_NUMBER = re.compile(r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?(?=[\s,.]|$)")


def spoken(text: str, prompt: str) -> str:
    """The text without its thinking and without copies of the prompt.

    A thinking part that never ends, also one that the prompt opened, holds no answer.
    """
    if OPEN_THINKING.search(prompt.rstrip()[-40:]) and not CLOSED_THINKING.search(text):
        return ""
    text = CLOSED_THINKING.split(text)[-1]
    text = OPEN_THINKING.split(text)[0]
    echo = prompt.strip()
    return text.replace(echo, "\n") if len(echo) >= MIN_ECHO else text


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Start, end and content of each outermost \boxed{...} with balanced braces, in order."""
    opened: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, str]] = []
    for brace in re.finditer(r"\\(?:boxed|fbox)\s*\{|\\?[{}]", text):
        if "box" in brace[0]:
            opened.append((brace.start(), brace.end()))
        elif brace[0].endswith("{"):
            opened.append(None)
        elif opened and (start := opened.pop()) is not None:
            del found[bisect_left(found, (start[0], 0, "")) :]
            found.append((start[0], brace.end(), text[start[1] : brace.end() - 1]))
    return found


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...}, or None; boxes next to each other are one list.

    Boxes are next to each other when only blanks, commas, "and" or "or" stand between them, and
    names: x = \boxed{1}, y = \boxed{2}. A box that is part of a larger expression (2\boxed{3},
    \boxed{3}^2) is no answer: "".
    """
    found = boxes(text)
    if not found:
        return None
    first, either = len(found) - 1, False
    while first:
        gap = text[found[first - 1][1] : found[first][0]][:MAX_GAP]
        counted = COUNTED_BOX.fullmatch(gap)
        noun = counted is not None and not DOUBT.search(counted[1])
        if not noun and not BETWEEN_BOXES.fullmatch(NAMED_BOX.sub("", gap)):
            break
        first -= 1
        either |= "or" in gap
    start, end = found[first][0], found[-1][1]
    before, after = text[max(0, start - 30) : start], text[end : end + 30]
    if GLUED_BEFORE.search(before) or GLUED_AFTER.match(after):
        return ""
    percent = r"\%" if PERCENT_AFTER.match(after) else ""
    content = boxed_list(text, found[first:], either)
    return content + percent if content else ""


def boxed_list(text: str, found: list[tuple[int, int, str]], either: bool) -> str:
    """The contents of boxes next to each other as a list, with their names if all have one."""
    contents = [content.strip() for _, _, content in found]
    names = [NAMED_BOX.search(text[max(0, start - 30) : start]) for start, _, _ in found]
    word = ", "
    if not contents[-1]:
        return ""
    if len(found) > 1 and all(names):
        pairs = zip(names, contents, strict=True)
        contents = [f"{name[1]} = {content}" for name, content in pairs if name]
        word = r" \text{ or } " if either else word
    return word.join(dict.fromkeys(contents))


def answer_of(text: str) -> str | None:
    """The answer a text gives, None if it gives none.

    In this order: its last box; what follows the last "answer is", "Answer:" or "####"; a formula
    at the end of its last sentence behind "is", "=" or ":"; what its last sentence says something
    is, or its last line if that is a formula. A heading "Final Answer:" behind the
    last box starts the text anew.
    """
    text = SPECIAL.split(text)[0]
    headings = list(HEADING.finditer(text))
    if headings and not boxes(text[headings[-1].start() :]):
        return after_marker(MARKER.split(text[headings[-1].start() :])[-1])
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    markers = list(MARKER.finditer(text))
    if markers:
        return after_marker(text[markers[-1].end() :])
    return at_the_end(text) or stated(text)


def after_marker(text: str) -> str | None:
    """The answer at the start of a text: a formula, a number, or the whole sentence."""
    text = FILLER.sub("", text.lstrip().replace("**", "")).lstrip()
    span = SPAN.match(text)
    if span is not None:
        rest = SENTENCE_END.split(text[span.end() :])[0]
        percent = PERCENT_AFTER.match(rest)
        if percent is not None:
            return inside(span) + r"\%"
        return None if DOUBTS.search(rest) else inside(span)
    end = SENTENCE_END.search(text)
    sentence = text[: end.start()].strip() if end else text.strip()
    if end and end[0] == "?":
        return None
    number = LEADING_NUMBER.match(sentence)
    rest = sentence[number.end() :] if number else ""
    if number and re.match(r"\s*[a-z]{3}|,", rest) and not DOUBTS.search(rest):
        return number[0].rstrip(",")
    return stated(sentence) or sentence or None


def at_the_end(text: str) -> str | None:
    """The formula that ends a text, if its last sentence says that this "is" the answer."""
    text = text.rstrip().rstrip(".").rstrip()
    spans = list(SPAN.finditer(text))
    if not spans or spans[-1].end() != len(text):
        return None
    before = text[: spans[-1].start()]
    sentence = re.split(r"[.!?]\s|\n\s*\n", SPAN.sub("it", before))[-1]
    asserted = STATES.search(before) and not re.search(
        r"\b(?:not|if|whether|asked?|maybe|perhaps|or)\b|n't", sentence, re.I
    )
    return inside(spans[-1]) if asserted else None


def inside(span: re.Match[str]) -> str:
    """The formula between its delimiters."""
    return next(group for group in span.groups() if group is not None).strip()
