"""The questions of a page: names that are links, and patterns that share no metric."""

from __future__ import annotations

import re

from rlkit.pages.questions import COST, OTHER_SCORES, QUESTIONS, SOURCES
from rlkit.pages.score import PASS
from tests.run_folders import evaluation, training


def test_every_panel_has_a_name_of_its_own():
    names = [panel.name for question in QUESTIONS for panel in question.panels]
    assert len(names) == len({*names})


def test_a_metric_is_in_one_plot_but_for_scores_which_are_also_over_their_cost():
    patterns = [p.keys for q in QUESTIONS if q is not COST for p in q.panels]
    engine = [f"off_policy/engine_{name}" for name in ("kl", "difference_mean", "difference_max")]
    held_out = [
        f"eval/{place}{name}"
        for place in ("", "math500/")
        for name in ("reward", "reward/math/mean", "mean_length", "truncated", "reflection_rate")
    ]
    more = dict.fromkeys([*engine, *held_out], 0.0)
    assert all(any(re.fullmatch(pattern, key) for pattern in patterns) for key in more)
    for key in {**evaluation(0, 0.1), **training(1), **more}:
        assert sum(re.fullmatch(pattern, key) is not None for pattern in patterns) <= 1, key


def test_scores_have_three_kinds():
    kinds = {
        "eval/pass@1": PASS,
        "eval/math500/pass@1": PASS,
        "eval/source/a/pass@1": SOURCES,
        "eval/pass@16": OTHER_SCORES,
        "eval/math500/greedy": OTHER_SCORES,
        "eval/aime24/maj@64": OTHER_SCORES,
    }
    for key, kind in kinds.items():
        found = [k for k in (PASS, SOURCES, OTHER_SCORES) if re.fullmatch(k, key)]
        assert found == [kind], key
