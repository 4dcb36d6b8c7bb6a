"""The hash that decides which problems are held out."""

from __future__ import annotations

import hashlib

from rlkit.tasks.split import unit_hash


def test_it_is_the_first_48_bits_of_the_sha256() -> None:
    """sha256("abc") begins with ba7816bf8f01."""
    assert unit_hash("abc") == 0xBA7816BF8F01 / 2**48


def test_it_is_below_1_for_every_text_also_for_lone_surrogates() -> None:
    texts = ["", "\ud800", "é", *map(str, range(1000))]
    found = [unit_hash(text) for text in texts]
    assert all(0 <= value < 1 for value in found) and len(set(found)) == len(texts)
    assert unit_hash("é") == int(hashlib.sha256("é".encode()).hexdigest()[:12], 16) / 2**48
