"""Which problems are held out: the text of a problem decides, on every machine alike."""

from __future__ import annotations

import hashlib


def unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text: the first 48 bits of its sha256.

    A problem is held out if this is below the held-out fraction, so copies of a problem always fall
    on the same side. Sorting by it is a fixed order unrelated to what the problems are about.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
