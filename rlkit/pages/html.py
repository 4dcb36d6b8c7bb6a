"""A page in one file: its styles, scripts and data are in it, and it may load nothing else."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
PLOTS = "uPlot.iife.min.js"
SCRIPTS = (PLOTS, "rlkit.js", "plot.js")
"""What every page has, before its own scripts."""
STYLES = ("uPlot.min.css", "rlkit.css")
LONGEST = 2_000
"""Characters of a line of text that a page shows; metrics and settings may hold a megabyte."""

HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ud800-\udfff]"
)
"""Characters that show nothing, or turn the direction of the text around them."""
JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


def document(
    title: str,
    body: str,
    data: Mapping[str, object],
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    *,
    connect: bool = False,
) -> str:
    """An HTML page that can be opened from a file, without a network.

    `title` is text; `body` is HTML, whose texts have gone through `text`. `data` is what the page's
    scripts read as `rlkit.data`: JSON, where a number that is not finite becomes null. `scripts`
    and `styles` are names of files in assets/, after those that every page has.

    The page's policy allows its own inline scripts and styles, by their hashes, and scripts which
    those add. It forbids everything else; `connect` lets the page also ask the server it is from.
    """
    codes = [_script(name) for name in (*SCRIPTS, *scripts)]
    looks = [asset(name) for name in (*STYLES, *styles)]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'strict-dynamic' {' '.join(map(_hash, codes))}",
            f"style-src {' '.join(map(_hash, looks))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            *(["connect-src 'self'"] if connect else []),
        )
    )
    head = "".join(f"<style>{look}</style>" for look in looks)
    tail = "".join(f"<script>{code}</script>" for code in codes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title>{head}</head>\n<body>{body}\n"
        f'<script type="application/json" id="data">{as_json(data)}</script>\n'
        f"{tail}</body></html>\n"
    )


def text(value: object, longest: int = LONGEST) -> str:
    """A text as HTML: escaped, cut, and with characters that hide or reorder others spelled out."""
    cut = "\n".join(_cut(line, longest) for line in str(value).split("\n"))
    return escape(HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", cut))


def as_json(data: Mapping[str, object]) -> str:
    """Data as JSON for a script element: ASCII, and no text in it can end the element."""
    return json.dumps(_finite(data), separators=(",", ":"), allow_nan=False).translate(JSON_ESCAPES)


def part(name: str, payload: Mapping[str, object]) -> str:
    """The text of <name>.js beside a page, which `rlkit.load(name)` adds when it is wanted."""
    return f"rlkit.put({json.dumps(name)},{as_json(payload)});\n"


@cache
def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """A script; its licence goes with it."""
    licence = f"/*\n{asset('uPlot-LICENSE')}\n*/\n" if name == PLOTS else ""
    return licence + asset(name)


def _hash(content: str) -> str:
    """The source expression of CSP that allows an inline element with this content."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def _cut(line: str, longest: int) -> str:
    if len(line) <= longest:
        return line
    return f"{line[:longest]} ... ({len(line):,} characters)"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
