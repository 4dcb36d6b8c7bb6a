"""What a run has done so far, and its stages."""

from __future__ import annotations

from dataclasses import asdict

from rlkit.training.counters import Counters


def test_lengths_are_compared_with_those_of_the_first_evaluation() -> None:
    """20 tokens, then 30: 1.5 times as many; a set that joins later begins at its own length."""
    count = Counters()
    first = count.with_length_ratios({"eval/mean_length": 20.0, "eval/pass@1": 0.5})
    assert first == {"eval/mean_length": 20.0, "eval/pass@1": 0.5, "eval/length_ratio": 1.0}
    again = Counters(**asdict(count)).next_stage()
    later = again.with_length_ratios({"eval/mean_length": 30.0, "eval/new/mean_length": 8.0})
    assert later["eval/length_ratio"] == 1.5 and later["eval/new/length_ratio"] == 1.0
    assert again.with_length_ratios({"eval/new/mean_length": 4.0})["eval/new/length_ratio"] == 0.5
    assert "eval/length_ratio" not in Counters().with_length_ratios({"eval/mean_length": 0.0})
