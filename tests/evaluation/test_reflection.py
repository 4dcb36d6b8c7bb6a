"""Self-reflection."""

from __future__ import annotations

from rlkit.evaluation.reflection import reflects


def test_reflection_is_a_word_anywhere() -> None:
    assert reflects("Wait, that is wrong") and reflects("so I DOUBLE-CHECK it")
    assert not reflects("The sum is 4.")
