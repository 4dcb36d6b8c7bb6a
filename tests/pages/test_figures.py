"""Groups compared: differences, their words, the baseline and the target."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.statistics import paired_difference, unpaired_difference
from rlkit.pages.figures import ENOUGH, Question, compare, difference
from rlkit.runs.records import read_run
from tests.pages.written import write_pair, write_run


def by_seed(*values: float, first: int = 0) -> dict[str, float]:
    return {str(first + place): value for place, value in enumerate(values)}


def compared(folders, **asked):
    return compare([read_run(folder) for folder in folders], Question(**asked))


def test_the_same_seeds_are_paired_so_that_what_they_share_cancels():
    """A seed's luck is in both; without pairing it would hide a gain of 0.01."""
    luck = [0.1, 0.5, 0.3, 0.9, 0.7]
    found = difference(by_seed(*luck), by_seed(*(x + 0.01 for x in luck)))
    assert found.paired
    assert found.estimate.low == pytest.approx(0.01) and found.estimate.high == pytest.approx(0.01)
    assert found.words == "better"


def test_pairs_are_of_equal_seeds_whatever_their_order():
    first, second = {"0": 0.1, "1": 0.5}, {"1": 0.6, "0": 0.3, "2": 0.9}
    assert difference(first, second).estimate == paired_difference([0.1, 0.5], [0.3, 0.6])


def test_other_seeds_are_not_paired():
    first, second = by_seed(0.1, 0.2, 0.3), by_seed(0.6, 0.5, first=2)
    found = difference(first, second)
    assert not found.paired
    assert found.estimate == unpaired_difference([0.1, 0.2, 0.3], [0.6, 0.5])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([0.1] * 5, [0.2] * 5, "better"),
        ([0.2] * 5, [0.1] * 5, "worse"),
        ([0.1] * 5, [0.0, 0.2, 0.0, 0.2, 0.1], "not distinguishable: the interval holds 0"),
        ([0.1] * 4, [0.9] * 4, f"not distinguishable: 4 seeds, too few (at least {ENOUGH})"),
        ([0.1], [0.9], f"not distinguishable: 1 seed, too few (at least {ENOUGH})"),
    ],
)
def test_a_difference_is_told_in_words(first, second, words):
    assert difference(by_seed(*first), by_seed(*second)).words == words


def test_the_first_group_is_the_baseline_unless_another_is_named(tmp_path):
    runs = write_pair(tmp_path, [0.5] * 2, [0.7] * 2)
    grpo, remix = compared(runs).rows
    assert grpo.difference is None and remix.difference is not None
    assert remix.difference.estimate.value == pytest.approx(0.2)
    for name in ("loss=remix", "rem", str(runs[-1])):
        grpo, remix = compared(runs, baseline=name).rows
        assert remix.difference is None and grpo.difference is not None
        assert grpo.difference.estimate.value == pytest.approx(-0.2)


@pytest.mark.parametrize(("name", "why"), [("loss", "several groups"), ("ppo", "no group")])
def test_a_baseline_that_is_no_one_group_is_refused(tmp_path, name, why):
    with pytest.raises(UserError, match=rf"{why}.*: loss=grpo; loss=remix"):
        compared(write_pair(tmp_path, [0.5], [0.7]), baseline=name)


def test_a_row_has_score_cost_and_what_varies(tmp_path):
    """The best group gains 0.8 from 0.1, so the target is 0.82, reached by remix at its end."""
    comparison = compared(write_pair(tmp_path, [0.4, 0.6], [0.8, 1.0]))
    assert comparison.target == pytest.approx(0.82)
    grpo, remix = comparison.rows
    assert (grpo.score.value, grpo.over, grpo.scores) == (0.5, "seeds", {"0": 0.4, "1": 0.6})
    assert (grpo.score.low, grpo.score.high) == (0.4, 0.6)
    assert remix.reached["rollouts/total"].median is None
    assert remix.reached["rollouts/total"].runs == 1
    assert remix.finished and remix.step == 4


def test_a_target_that_is_named_holds(tmp_path):
    comparison = compared(write_pair(tmp_path, [0.5], [0.9]), target=0.5)
    assert [row.reached["step"].median for row in comparison.rows] == [4, 2]


def test_one_run_has_an_interval_over_problems(tmp_path):
    (row,) = compared([write_run(tmp_path / "a", {0: 0.1, 4: 0.3})]).rows
    assert row.over == "problems" and row.score.n == 10
    (row,) = compared([tmp_path / "a"], metric="reward/mean").rows
    assert row.over == "" and row.score.n == 1


def test_unfinished_runs_and_runs_without_the_metric_are_told(tmp_path):
    whole = write_run(tmp_path / "a", {0: 0.1, 4: 0.5}, seed=0)
    short = write_run(tmp_path / "b", {0: 0.1, 2: 0.3}, seed=1, steps=4)
    bare = write_run(tmp_path / "c", {4: 0.5}, seed=2)
    (bare / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    comparison = compared([whole, short, bare])
    assert list(comparison.rows[0].scores) == ["0"]
    assert comparison.notes == [
        f"without eval/pass@1, left out: {bare}",
        f"defaults: unfinished, left out: {short}",
    ]


def test_the_metric_is_the_first_score_unless_another_is_named(tmp_path):
    run = write_run(tmp_path / "a", {0: 0.1, 4: 0.5})
    assert compared([run], metric="reward/mean").metric == "reward/mean"
    with pytest.raises(
        UserError, match=r"no run has logged reward/meen. Did you mean 'reward/mean'"
    ):
        compared([run], metric="reward/meen")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace("eval/pass@1", "eval/math/pass@1"))
    assert compared([run]).metric == "eval/math/pass@1"
    (run / "metrics.jsonl").write_text(text.replace("eval/pass@1", "eval/other"))
    with pytest.raises(UserError, match="none of these runs holds an evaluation"):
        compared([run])
