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


def test_it_is_in_no_total_by_default_and_judges_nothing() -> None:
    reward = build("reward", "unreadable")
    assert reward.config.weight == 0 and reward.marks_correctness is False
    assert build("reward", "unreadable", weight=-1.0).config.weight == -1
