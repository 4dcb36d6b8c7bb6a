"""The definitions of the named benchmarks."""

from __future__ import annotations

from rlkit.evaluation.benchmarks import ALL, BENCHMARKS, REMIX


def test_the_remix_suite_has_the_five_benchmarks_of_its_table() -> None:
    assert REMIX.benchmarks == ("aime24", "amc22_23", "math500", "minerva", "olympiadbench")
    assert BENCHMARKS["amc22_23"].count == 83 and BENCHMARKS["amc23"].count == 40
    assert REMIX.samples == {"aime24": 32, "amc22_23": 32} and REMIX.temperature == 0.1
    assert REMIX.key == "remix" and REMIX.max_tokens == 8192


def test_every_benchmark_says_what_is_wrong_with_it() -> None:
    assert all(len(benchmark.flaws) > 60 and benchmark.count > 0 for benchmark in ALL)
    assert [benchmark.name for benchmark in ALL] == list(BENCHMARKS)
