"""The head of the page: what stands in it for which run."""

from __future__ import annotations

import json
import re

import pytest

from rlkit.pages.headline import composition, duration, headline
from rlkit.runs.records import read_run
from tests.run_folders import PART, evaluation, records_of, remix_run, training


def words(run) -> str:
    """The text of the head, without elements."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", headline(run)))


def parts(**names: str) -> str:
    return json.dumps({kind.replace("__", "."): {"name": n, **PART} for kind, n in names.items()})


def test_a_run_with_a_score_on_one_page(tmp_path):
    found = words(read_run(remix_run(tmp_path / "remix-1")))
    assert found.startswith(" remix-1 loss remix 4 steps · 128 responses · 1,280 tokens · 6 s of ")
    assert "model embedded · seed 7" in found
    assert "Held-out pass@1 0.100 → 0.600 95%: [0.055, 0.174] → [0.502, 0.691]" in found
    assert "50% 0.350 128 6 s 4" in found and "At the first of 2 evaluations" in found
    assert "generation 17% rewards 17% log-probs 17% updates 17% sync 17% rest 17%" in found
    assert "Evaluations took a further 4 s." in found
    assert "Nothing to warn about. Checked: clipped tokens, effective sample size" in found


def test_the_composition_is_one_line_in_a_fixed_order(tmp_path):
    run = records_of(
        tmp_path / "r",
        [training(1)],
        components_json=parts(
            reward__math="math",
            reward__overlong="overlong",
            tracker__wandb="wandb",
            buffer="fifo",
            loss="remix",
            correction__tis="tis",
        ),
        overrides="algorithm=grpo\nalgorithm=remix\n",
    )
    assert composition(run) == [
        (
            "",
            [
                ("loss", "remix"),
                ("correction", "tis"),
                ("buffer", "fifo"),
                ("reward", "math+overlong"),
            ],
        )
    ]
    assert words(run).startswith(
        " r remix loss remix correction tis buffer fifo reward math+overlong 1 steps"
    )


def test_each_stage_has_its_own_line(tmp_path):
    sections = {
        "loss (stage 1)": "sft",
        "reward.math (stage 1)": "math",
        "loss (stage 2)": "remix",
    }
    components = json.dumps({section: {"name": n, **PART} for section, n in sections.items()})
    run = records_of(tmp_path / "r", [training(1)], components_json=components)
    assert composition(run) == [
        ("stage 1", [("loss", "sft"), ("reward", "math")]),
        ("stage 2", [("loss", "remix")]),
    ]


def test_the_algorithm_is_named_once(tmp_path):
    sections = {f"loss (stage {n})": {"name": "sft", **PART} for n in (1, 2)}
    run = records_of(
        tmp_path / "r",
        [training(1)],
        components_json=json.dumps(sections),
        overrides="algorithm=luffy\n",
    )
    assert words(run).startswith(" r luffy stage 1 loss sft stage 2 loss sft ")


def test_a_run_without_an_evaluation_says_so(tmp_path):
    found = words(records_of(tmp_path / "r", [training(1)]))
    assert "This run was not evaluated." in found and "What it took" not in found


def test_a_run_that_only_evaluated_has_neither_gain_nor_times(tmp_path):
    found = words(records_of(tmp_path / "r", [evaluation(0, 0.25)]))
    assert "0.250 → 0.250" in found and "chance" not in found
    assert "What it took" not in found and "Where the time went" not in found


def test_a_score_that_did_not_rise_took_nothing(tmp_path):
    run = records_of(tmp_path / "r", [evaluation(0, 0.5), training(1), evaluation(1, 0.25)])
    assert "What it took The score did not rise." in words(run)


def test_intervals_that_overlap_may_be_chance(tmp_path):
    config = "eval: {problems: 100}\n"
    near = [evaluation(0, 0.5), training(1), evaluation(1, 0.55)]
    far = [evaluation(0, 0.1), training(1), evaluation(1, 0.9)]
    assert "may be chance" in words(records_of(tmp_path / "near", near, config_yaml=config))
    assert "may be chance" not in words(records_of(tmp_path / "far", far, config_yaml=config))


def test_the_best_score_is_told_where_it_is_neither_end(tmp_path):
    rows = [evaluation(0, 0.2), evaluation(5, 0.7), evaluation(9, 0.6)]
    assert "Best 0.700" in words(records_of(tmp_path / "r", rows))
    assert "Best" not in words(records_of(tmp_path / "s", rows[:2]))


def test_several_benchmarks_are_listed_below_the_first(tmp_path):
    scores = {f"eval/b{i}/pass@1": 0.5 for i in range(11)}
    found = words(records_of(tmp_path / "r", [{"step": 0, "eval/pass@1": 0.5, **scores}]))
    assert "b7 0.500 0.500" in found and "b8" not in found and "and 3 more" in found


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    run = records_of(tmp_path / "r", [training(3)], config_yaml="train: {steps: 2000}\n")
    assert "3 of 2,000 steps" in words(run)


@pytest.mark.parametrize(("device", "told"), [("cuda:0", True), ("auto", False), ("cpu", False)])
def test_gpu_hours_are_told_where_the_settings_say_that_there_were_gpus(tmp_path, device, told):
    """4 processes for 1800 seconds are 2 GPU-hours."""
    row = {**training(1), "time/step": 1800.0, "run/processes": 4}
    run = records_of(tmp_path / "r", [row], config_yaml=f"model: {{device: '{device}'}}\n")
    assert ("2 GPU-hours" in words(run)) is told


def test_an_alarm_links_to_its_plot(tmp_path):
    run = records_of(tmp_path / "r", [training(1, policy__clip_fraction=0.5)])
    assert '<a href="#plot-clip">See the plot</a>' in headline(run)
    assert "Nothing to warn about" not in headline(run)


def test_nothing_a_user_wrote_becomes_an_element(tmp_path):
    hostile = "<script>alert(1)</script>\u202e"
    name = {"name": hostile, **PART}
    run = records_of(
        tmp_path / "a<b>",
        [{"step": 1, f"eval/{hostile}/pass@1": 0.5, f"{hostile}/x": float("nan")}],
        components_json=json.dumps({"loss": name, f"reward.{hostile}": name}),
        config_yaml=f"model: {{name: '{hostile[:-1]}'}}\n",
        overrides=f"algorithm={hostile}\n",
    )
    found = headline(run)
    assert "<script" not in found and "<b>" not in found.partition("</h1>")[0]
    assert found.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5 and "\u202e" not in found


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.01234, "0.0123 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds, told):
    assert duration(seconds) == told
