"""The alphabet of answers: what is written in several ways has one spelling."""

from __future__ import annotations

import re


def words_of(text: str) -> frozenset[str]:
    """The words of a list separated by blanks."""
    return frozenset(text.split())


UNICODE = {
    "\u2212": "-",
    "\u2013": "-",
    "\u00d7": r"\times ",
    "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u00f7": r"\div ",
    "\u221a": r"\sqrt ",
    "\u03c0": r"\pi ",
    "\u03b8": r"\theta ",
    "\u00b0": r"^\circ ",
    "\u221e": r"\infty ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u222a": r"\cup ",
    "\u2208": r"\in ",
    "\u00b1": r"\pm ",
    "\u2248": r"\approx ",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "\uff0c": ",",
    "\u2a7d": r"\le ",
    "\u2a7e": r"\ge ",
    "\u2261": r"\equiv ",
    "\u2205": r"\emptyset ",
    "\u2216": r"\setminus ",
    "\u211d": r"\mathbb{R}",
    "\u2192": r"\to ",
    "\u210f": r"\hbar ",
    "\u2032": "'",
    "\u2019": "'",
}
LETTERS = {
    "alpha": "\u03b1",
    "beta": "\u03b2",
    "gamma": "\u03b3",
    "delta": "\u03b4",
    "epsilon": "\u03b5",
    "lambda": "\u03bb",
    "mu": "\u03bc",
    "nu": "\u03bd",
    "rho": "\u03c1",
    "sigma": "\u03c3",
    "tau": "\u03c4",
    "phi": "\u03c6",
    "psi": "\u03c8",
    "omega": "\u03c9",
    "Delta": "\u0394",
    "Omega": "\u03a9",
}
UNICODE_TABLE = str.maketrans(UNICODE | {sign: f"\\{name} " for name, sign in LETTERS.items()})
RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
RAISED_RUN = re.compile(f"[{RAISED}]+")
RAISED_TABLE = str.maketrans(RAISED, "0123456789+-")
SAME = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "leq": "le",
    "leqslant": "le",
    "leqq": "le",
    "lt": "<",
    "geq": "ge",
    "geqslant": "ge",
    "geqq": "ge",
    "gt": ">",
    "neq": "ne",
    "ast": "cdot",
    "lbrace": "{",
    "rbrace": "}",
    "lbrack": "[",
    "rbrack": "]",
    "langle": "(",
    "rangle": ")",
    "colon": ":",
    "vert": "|",
    "rightarrow": "to",
    "mod": "pmod",
    "backslash": "setminus",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "degree": "circ",
    "simeq": "approx",
    "land": "and",
    "lor": "or",
}
FUNCTIONS = words_of("sin cos tan cot sec csc asin acos atan sinh cosh tanh ln log exp sqrt")
PLAIN_WORDS = {name: f"\\{name}" for name in FUNCTIONS | {"pi", "infty"}} | {
    "arcsin": r"\asin",
    "arccos": r"\acos",
    "arctan": r"\atan",
    "and": r"\and",
    "or": r"\or",
    "percent": "%",
    "per cent": "%",
    "pct": "%",
    "percentage": "%",
    "mod": r"\pmod",
    "modulo": r"\pmod",
}
SIGNS = {
    "**": "^",
    "!=": r"\ne",
    "<=": r"\le",
    ">=": r"\ge",
    "$": r"\$",
    "£": r"\$",
    "€": r"\$",
    r"\%": "%",
}
ONE_MATRIX = re.compile(
    r"\\(begin)\s*\{(?:array\}\s*\{[clr ]*\}|(?:[pbB]|small)?matrix\})"
    r"|\\(end)\s*\{(?:array|(?:[pbB]|small)?matrix)\}"
)
ONE_LETTER = re.compile(r"\\(?:math(?:rm|bf|it|sf)|boldsymbol|bm)\s+([A-Za-z])(?![A-Za-z])")
MODULUS = re.compile(
    r"\(\s*(?:\\[bp]?mod|\\(?:text|mathrm|operatorname)\s*\{\s*mod(?:ulo)?\s*\}|mod(?:ulo)?)(?![a-zA-Z])"
    r"([^()]{1,40})\)"
)
INFIXES = {"choose": "binom", "over": "frac"}
INFIX = re.compile(r"\{([^{}]*)\\(choose|over)(?![a-zA-Z])([^{}]*)\}")
CASES = re.compile(r"\\begin\s*\{cases\}([^&]*)\\end\s*\{cases\}")
PYTHON = re.compile(r"\b(?:np|math|numpy|sympy)\.(?=[a-z])")


def plain_signs(text: str) -> str:
    """A text with LaTeX commands for unicode signs; a run of raised digits is one exponent."""
    raised = RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(RAISED_TABLE)}}}", text)
    return raised.translate(UNICODE_TABLE)


def one_spelling(text: str) -> str:
    r"""A text with pmatrix for every matrix, \pmod{m} for (mod m), and letters without a font."""
    text = ONE_MATRIX.sub(lambda env: rf"\{env[1] or env[2]}{{pmatrix}}", text)
    if cases := CASES.fullmatch(text.strip()):
        text = cases[1].strip().removesuffix("\\\\").replace("\\\\", ", ")
    text = INFIX.sub(lambda m: rf"\{INFIXES[m[2]]}{{{m[1]}}}{{{m[3]}}}", text)
    text = re.sub(r"\\not\s*=", r"\\ne ", text)
    text = MODULUS.sub(r" \\pmod{\1} ", text)
    return PYTHON.sub("", ONE_LETTER.sub(r" \1 ", text))
