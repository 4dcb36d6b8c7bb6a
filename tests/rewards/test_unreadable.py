"""Which responses hold what is no character."""

from __future__ import annotations

from rlkit.registry import build

BROKEN = "a\N{REPLACEMENT CHARACTER}"


def test_only_what_the_policy_wrote_counts() -> None:
    chats = [
        "fine",
        BROKEN,
        [{"role": "assistant", "content": BROKEN}],
        [{"role": "assistant", "content": "a"}, {"role": "tool", "content": BROKEN}],
        [{"role": "assistant", "content": "a", "reasoning_content": BROKEN}],
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": BROKEN}],
    ]
    reward = build("reward", "unreadable")
    assert reward([None] * 6, chats) == [0, 1, 1, 0, 1, 1]


def test_a_character_that_the_length_limit_cut_does_not_count() -> None:
    """One run of them, at the very end of what the policy wrote, and not all of it."""
    mark = "\N{REPLACEMENT CHARACTER}"
    thought = {"role": "assistant", "content": "", "reasoning_content": BROKEN}
    rows = [
        (BROKEN, "length", 0),
        (BROKEN, "stop", 1),
        (f"a{mark * 3}", "length", 0),
        (f"a{mark}b{mark}", "length", 1),
        (f"{BROKEN}b", "length", 1),
        (mark * 9, "length", 1),
        ([{"role": "assistant", "content": BROKEN}], "length", 0),
        ([{"role": "assistant", "content": t} for t in (BROKEN, "b")], "length", 1),
        ([thought], "length", 0),
        ([thought | {"content": "a"}], "length", 1),
        ([], "length", 0),
    ]
    texts, reasons, expected = ([row[i] for row in rows] for i in range(3))
    reward = build("reward", "unreadable")
    assert reward([None] * len(rows), texts, finish_reasons=reasons) == expected


def test_it_is_in_no_total_by_default_and_judges_nothing() -> None:
    reward = build("reward", "unreadable")
    assert reward.config.weight == 0 and reward.marks_correctness is False
    assert build("reward", "unreadable", weight=-1.0).config.weight == -1
