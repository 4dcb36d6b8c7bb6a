r"""What the last sentence of a text says that something is, if nothing in it casts a doubt."""

from __future__ import annotations

import re

MAX_SENTENCE = 400
MAX_LINE = 200
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|。")
DOUBTING = """
not no nor or neither either none never maybe perhaps possibly probably likely whether if when
unless suppose supposing assume assuming let but except without instead rather another about
approximately around roughly nearly almost some less more fewer greater
than between over under below above wrong incorrect incorrectly false invalid impossible
unknown unclear error mistake mistaken claim claims claimed say says said think thinks thought guess
guessed guesses believe wonder ask asks asked told would could might may should must can cannot
previous earlier original given example first hundred hundreds thousand thousands million millions
billion billions trillion trillions dozen dozens half twice double triple times squared cubed minus
plus divided base mod modulo reject rejected rejects exclude excluded excludes excluding discard
discarded discards eliminate eliminated opposite negative reciprocal inverse complement contradict
contradicts contradiction avoid ignore intermediate partial
note recall remember know known hint question problem prompt page section exercise part step
instruction instructions grader rubric reward score random lucky
"""
DOUBT = re.compile(
    rf"\b(?:{'|'.join(DOUBTING.split())}|one of|at least|at most|up to)\b|n't\b|\?|\.\.\.|\\ldots",
    re.I,
)
"""Words after which a sentence does not plainly state its number as the answer."""
VERB = re.compile(
    r"\b(?:is(?: equal to)?|are|equals)(?:\s*:)?\s+|\b(?:has|have|with) a total of\s+"
)
BOLD = re.compile(
    r"\b(?:has|had|have|gets?|got|makes?|made|needs?|needed|buys|bought|sold|spent|earns|earned|costs?"
    r"|paid|pays|saved|takes|took|received|obtain|find|found|was|were|of|left) "
    r"\*\*([^*\n]{1,100})\*\*"
)
REASON = re.compile(r"(-?[0-9][0-9,]*(?:\.[0-9]+)?),? (?:because|since)\b[^0-9]*")
NAMED = re.compile(r"\b(?:result|value|total|sum|solution)\s*[:=]\s*", re.I)
INVERTED = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|finally)\b,?\s+)?(.+?) is (?:the|our) "
    r"(?:final |correct )?answer",
    re.I,
)
CONCLUSION = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|finally|consequently|we|get|have|obtain|find|conclude|that)"
    r"\b,?\s*)+(?=\S+\s*=|\$|\\\(|\\\[)",
    re.I,
)
OTHER_LANGUAGE = re.compile(
    r"(?:[\u662f\u4e3a\u6709\u4e8e]|\u0647\u0648)\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s?"
    r"(?:(?![\u5341\u767e\u5343\u4e07\u4ebf\u5146\u500d\u6210\u591a\u4f59])[\u4e00-\u9fff]){0,4}"
)
"""A Chinese or Arabic "is" or "has", a number, and up to four Chinese signs that count."""
OTHER_DOUBT = re.compile(
    "[\u4e0d\u6ca1\u975e\u6216\u5417\u7ea6\u82e5\u5047\u5982\u5e76\u9519\uff1f\u061f]"
    "|\u0644\u064a\u0633|\u0644\u0627 |\u0623\u0648|\u0625\u0630\u0627"
)
QUANTITY = re.compile(
    r"(-?[$\u20ac\u00a3]?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?) ?"
    r"((?!(?:of|in|to) )[A-Za-z]+(?:[ /][A-Za-z]+){0,3})"
    r"([\u00b2\u00b3]|\^[23])?"
)
TOTAL = re.compile(r",? (?:in total|altogether|in all|overall)$", re.I)
PERCENT = re.compile(r"\b(?:percent|per cent|pct)\b|%")
DELIMITED = re.compile(
    r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]", re.S
)
LIST_ITEM = re.compile(r"(?:[-*\u2022]\s|\(?[0-9]{1,2}[.)](?:\s|$)|[0-9]+\.$)")
WORD = re.compile(r"[A-Za-z]{2,}")
ANNOUNCED = re.compile(
    r"\s*(?:\\text\s*\{\s*)?(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is\b\s*:?|[:=])\s*\}?(.+)",
    re.I | re.S,
)


def announced(box: str) -> str | None:
    r"""The answer in a box that first says so: \text{The answer is } 5."""
    match = ANNOUNCED.fullmatch(box)
    return match[1].strip() if match else None


def stated(text: str) -> str | None:
    """The answer that the end of a text states: its last line as a formula, or its last sentence.

    None if the sentence says more than one thing, doubts, or asks.
    """
    bold = BOLD.findall(text.strip().rsplit("\n", 1)[-1])
    text = text.replace("**", "").strip()
    if (formula := last_line(text)) is not None:
        return formula
    sentence = last_sentence(text.rsplit("\n", 1)[-1].strip())
    if len(sentence) > MAX_SENTENCE or DOUBT.search(sentence):
        return None
    if not WORD.search(sentence):
        return in_other_language(sentence)
    if reason := REASON.fullmatch(sentence):
        return reason[1]
    if inverted := INVERTED.fullmatch(sentence):
        return said(inverted[1])
    verbs = list(VERB.finditer(sentence)) or list(NAMED.finditer(sentence))
    refined = len(verbs) == 2 and sentence[: verbs[1].start()].endswith("which ")
    if (len(verbs) == 1 or refined) and WORD.match(sentence):
        return said(sentence[verbs[-1].end() :])
    if (conclusion := CONCLUSION.match(sentence)) and not verbs:
        return bare(sentence[conclusion.end() :])
    return said(bold[0]) if len(bold) == 1 and bold[0] in sentence and not verbs else None


def in_other_language(sentence: str) -> str | None:
    """The number at the end of a sentence in Chinese or Arabic that says what something is."""
    starts = list(re.finditer(OTHER_LANGUAGE.pattern + "$", sentence))
    return starts[0][1] if starts and not OTHER_DOUBT.search(sentence) else None


def last_sentence(line: str) -> str:
    """The last sentence of a line, without its full stop; with it if it is another sign."""
    line = line.removesuffix(".").removesuffix("\u3002").rstrip()
    ends = [end.end() for end in SENTENCE_END.finditer(line) if end.end() < len(line)]
    return line[ends[-1] :].strip() if ends else line


def said(text: str) -> str | None:
    """A number with or without words that it counts, or a formula without words."""
    text = TOTAL.sub("", text)
    quantity = QUANTITY.fullmatch(text)
    if quantity is None or PERCENT.fullmatch(quantity[2]):
        return bare(text)
    return rf"{quantity[1]}\text{{ {quantity[2]}}}{quantity[3] or ''}"


def bare(text: str) -> str | None:
    """A formula, or several with "and" or commas between them; None if it holds other words."""
    text = text.strip()
    if span := DELIMITED.fullmatch(text):
        return next(group for group in span.groups() if group is not None).strip() or None
    rest = DELIMITED.sub(" ", text)
    plain = re.sub(r"\\[A-Za-z]+|\band\b|" + PERCENT.pattern, " ", rest)
    return None if WORD.search(plain) or "$" in rest.replace(r"\$", "")[1:] else text or None


def last_line(text: str) -> str | None:
    """The last line if it is a formula by itself below a sentence that casts no doubt."""
    above, line = last_block(text)
    sentence = last_sentence(above.strip().rsplit("\n", 1)[-1].strip().rstrip(":"))
    below_a_list = LIST_ITEM.match(line) or not WORD.search(sentence)
    if not above.strip() or below_a_list or len(line) > MAX_LINE or DOUBT.search(sentence):
        return None
    return bare(line.removesuffix("."))


def last_block(text: str) -> tuple[str, str]:
    """What stands above the last line, and that line; a formula on lines of its own is one."""
    for opener, closer in (("$$", "$$"), (r"\[", r"\]")):
        body = text.removesuffix(".").rstrip()
        start = body.rfind(opener, 0, len(body) - 2)
        if body.endswith(closer) and start >= 0 and "\n" in body[max(0, start - 2) : start]:
            return body[:start], body[start:]
    above, _, line = text.rpartition("\n")
    return above, line.strip()
