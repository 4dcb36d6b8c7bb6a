"""report.html: what is in the file, for runs of every kind and size."""

from __future__ import annotations

import json
import math
import random

import pytest

from rlkit.errors import UserError
from rlkit.pages.columns import Columns
from rlkit.pages.report import data, page, write_report
from rlkit.pages.score import wilson
from rlkit.runs.records import read_run
from tests.run_folders import evaluation, held, records_of, remix_run, training, write_run


def test_the_page_is_one_file_in_the_runs_folder(tmp_path):
    run_dir = remix_run(tmp_path / "remix-1")
    out = write_report(run_dir)
    assert out == run_dir / "report.html"
    text = out.read_text()
    assert text.startswith("<!doctype html>") and "<title>remix-1 · rlkit</title>" in text
    found = held(text)
    assert [q["name"] for q in found["questions"]] == [
        *("learns", "cost", "off-policy", "stable", "time", "others")
    ]
    assert found["marks"] == [{"row": 3, "text": "rebirth 1"}]


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    run_dir = remix_run(tmp_path / "r")
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_scores_have_bands_and_those_of_sources_have_none(tmp_path):
    row = {"step": 0, "eval/pass@1": 0.5, "eval/source/a/pass@1": 0.5}
    run = records_of(tmp_path / "r", [row], config_yaml="eval: {problems: 100}\n")
    bands = data(run, Columns.of(run))["bands"]
    assert bands == {"eval/pass@1": [[round(end, 6)] for end in wilson(0.5, 100)]}


def test_stages_and_rebirths_are_marked(tmp_path):
    rows = [
        training(step, schedule__stage=step // 4, schedule__rebirths=step // 2)
        for step in range(1, 6)
    ]
    run = records_of(tmp_path / "r", rows)
    assert data(run, Columns.of(run))["marks"] == [
        {"row": 1, "text": "rebirth 1"},
        {"row": 3, "text": "rebirth 2"},
        {"row": 3, "text": "stage 2"},
    ]


@pytest.mark.parametrize(
    "records",
    [
        [training(1)],
        [evaluation(0, 0.5)],
        [{"step": 1}],
        [{"step": 1, "reward/mean": float("nan"), "eval/pass@1": float("inf")}],
    ],
    ids=["one step", "an evaluation alone", "nothing", "nothing finite"],
)
def test_a_run_with_next_to_nothing_has_a_page(tmp_path, records):
    run_dir = write_run(tmp_path / "r", records)
    assert held(write_report(run_dir).read_text())["axes"]["step"]


def test_the_figures_of_every_metric_are_in_a_table(tmp_path):
    text = write_report(remix_run(tmp_path / "r")).read_text()
    cells = "".join(f'<td class="figure">{value}</td>' for value in ("0.1", "0.4", "0.1", "0.4"))
    assert f"<td>reward/mean</td>{cells}" in text


def test_the_lowest_and_highest_figures_are_those_that_are_finite(tmp_path):
    values = (float("nan"), 3.0, 1.0, float("inf"))
    rows = [{"step": i, "mine": value} for i, value in enumerate(values)]
    text = page(records_of(tmp_path / "r", rows))
    cells = "".join(f'<td class="figure">{value}</td>' for value in ("nan", "inf", "1", "3"))
    assert f"<td>mine</td>{cells}" in text


def test_settings_overrides_and_parts_are_in_the_page_as_text(tmp_path):
    text = write_report(remix_run(tmp_path / "r")).read_text()
    assert "train.steps=4\nloss.&lt;b&gt;=1" in text
    assert "<td>algorithms.remix:ReMix</td><td>rlkit-rft 0.1.0</td>" in text
    assert "seed: 7" in text


def test_hostile_texts_are_data(tmp_path):
    evil = "</script><script>alert(1)</script>{{7*7}}\u202e"
    run_dir = write_run(
        tmp_path / "r",
        [{**training(1), evil: 1.0, "x" * 1_000_000 + "/y": 2.0}],
        overrides=evil + "\n" + "z" * 1_000_000,
        config_yaml=json.dumps({"evil": evil, "long": "<" * 1_000_000}),
        components_json=json.dumps({evil: {"name": evil, "version": None}}),
    )
    text = write_report(run_dir).read_text()
    assert "<script>alert" not in text and "\u202e" not in text
    assert evil in held(text)["series"]
    assert text.count("<script") == 7  # six of the page's own and its data


def metrics_of_a_step(step: int, draw: random.Random) -> dict[str, float]:
    """As many metrics, with as many digits, as a run with replay, vLLM and several ages logs."""
    row = {key: value * (1 + 0.1 * draw.random()) for key, value in training(step).items()}
    row |= {"step": step, "rollouts/total": 128 * step, "rollouts/tokens": 38_412 * step}
    for age in range(8):
        row[f"policy/ratio_mean_age_{age}"] = draw.gauss(1, 0.1)
        row[f"policy/clip_fraction_age_{age}"] = draw.random()
    return row | {f"mine/metric_{i}": draw.gauss(0, 1) for i in range(20)}


def test_a_page_of_a_thousand_steps_is_small(tmp_path):
    draw = random.Random(0)
    rows = [evaluation(0, 0.1)]
    for step in range(1, 1001):
        rows.append(metrics_of_a_step(step, draw))
        rows += [evaluation(step, draw.random())] if step % 20 == 0 else []
    assert len(rows[1]) > 60
    size = write_report(write_run(tmp_path / "r", rows)).stat().st_size
    assert size < 900_000


def test_a_page_of_a_very_long_run_says_what_a_point_is(tmp_path):
    rows = [{"step": i, "policy/loss": math.sin(i)} for i in range(1, 4002)]
    text = page(records_of(tmp_path / "r", rows))
    assert "A point of a plot is the mean of 3 steps" in text
    assert len(held(text)["axes"]["step"]) == 1334
    assert "A point of a plot" not in page(records_of(tmp_path / "s", rows[:2000]))


def test_a_page_that_is_served_may_ask_its_server(tmp_path):
    run = read_run(remix_run(tmp_path / "r"))
    assert "connect-src 'self'" in page(run, connect=True)
    assert "connect-src" not in page(run)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    run_dir = remix_run(tmp_path / "r")
    (run_dir / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report.html cannot be written"):
        write_report(run_dir)


def test_a_folder_without_metrics_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
