"""The report: what is read from a run's folder and what stands on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from plotly.graph_objects import Figure
from rlkit.runs.report import ROLLOUTS, SECONDS, compare_report, read_run, write_report

from rlkit.errors import UserError


def evaluation(step: int, value: float) -> dict[str, float]:
    return {"step": step, "eval/pass@1": value, "eval/pass@4": value, "eval/greedy": value + 0.05}


def training(step: int) -> dict[str, float]:
    ages = {
        f"policy/{name}_age_{age}": 0.1 * age
        for name in ("clip_fraction", "ratio_mean")
        for age in range(3)
    }
    times = {f"time/{name}": 0.25 for name in ("rollout", "reward", "forward", "update", "sync")}
    return {
        "step": step,
        "rollouts/total": 32 * step,
        "reward/mean": step / 10,
        "reward/std": 0.2,
        "completions/mean_length": 12.0,
        "policy/clip_fraction": 0.05,
        "anchor/kl": 0.01,
        "anchor/kl_base": 0.02,
        "buffer/age_mean": 0.5,
        "buffer/age_max": 2.0,
        "schedule/rebirths": float(step >= 3),
        "time/step": 1.5,
        **ages,
        **times,
    }


def write_run(folder: Path, records, **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.fixture
def run_dir(tmp_path) -> Path:
    records = [evaluation(0, 0.1), *(training(s) for s in range(1, 5)), evaluation(4, 0.6)]
    path, version = "algorithms.remix:ReMix", "rlkit-rft 0.1.0"
    part = {"name": "remix", "import_path": path, "version": version, "config": {}}
    return write_run(
        tmp_path / "remix-1",
        records,
        config_yaml=yaml.safe_dump({"loss": {"name": "remix"}, "seed": 7}),
        components_json=json.dumps({"loss": part}),
        overrides="train.steps=4\nloss.<b>=1\n",
    )


def plots(page: str) -> list[dict]:
    """The traces and layouts plotly draws: the arguments of each Plotly.newPlot call."""
    found = []
    for match in re.finditer(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*", page):
        data, end = json.JSONDecoder().raw_decode(page, match.end())
        layout, _ = json.JSONDecoder().raw_decode(page, page.index("{", end))
        found.append({"data": data, "layout": layout, "title": layout["title"]["text"]})
    return found


def plot(page: str, title: str) -> dict:
    return next(p for p in plots(page) if p["title"] == title)


def test_every_record_knows_the_responses_and_training_seconds_before_it(run_dir):
    run = read_run(run_dir)
    assert run.series("eval/pass@1", ROLLOUTS) == ([0, 128], [0.1, 0.6])
    assert run.series("eval/pass@1", SECONDS) == ([0.0, 6.0], [0.1, 0.6])
    assert run.series("reward/mean") == ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])


def test_keys_are_matched_whole_and_ages_are_sorted_as_numbers(tmp_path):
    keys = ("policy/ratio_mean_age_10", "policy/ratio_mean_age_9", "policy/ratio_mean")
    run_dir = write_run(tmp_path / "r", [{"step": 1, **dict.fromkeys(keys, 1.0)}])
    run = read_run(run_dir)
    assert run.keys(r"policy/ratio_mean(_age_\d+)?") == [*reversed(keys)]
    assert run.keys("policy/ratio") == []


def test_a_rebirth_is_where_the_count_grows(run_dir):
    run = read_run(run_dir)
    assert run.rebirths("step") == [3]
    assert run.rebirths(ROLLOUTS) == [96]


def test_a_line_still_being_written_is_left_out(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "reward/me')
    assert read_run(run_dir).series("reward/mean")[0] == [1, 2, 3, 4]


def test_the_page_draws_accuracy_over_responses_and_steps(run_dir):
    page = write_report(run_dir).read_text()
    for title, x in (("responses", [0, 128]), ("steps", [0, 4])):
        traces = {t["name"]: t for t in plot(page, f"Held-out accuracy over {title}")["data"]}
        assert set(traces) == {"eval/pass@1", "eval/pass@4", "eval/greedy"}
        assert traces["eval/pass@1"]["x"] == x
        assert traces["eval/pass@1"]["y"] == [0.1, 0.6]


def test_the_page_shows_ages_kl_and_where_the_time_went(run_dir):
    page = write_report(run_dir).read_text()
    clip = [t["name"] for t in plot(page, "Clip fraction by age in steps")["data"]]
    assert clip == ["policy/clip_fraction", *(f"policy/clip_fraction_age_{k}" for k in range(3))]
    assert [t["name"] for t in plot(page, "KL")["data"]] == ["anchor/kl", "anchor/kl_base"]
    seconds = plot(page, "Seconds per step")["data"]
    assert {t["stackgroup"] for t in seconds} == {"all"}
    assert "time/step" not in {t["name"] for t in seconds}
    assert plot(page, "Reward")["layout"]["shapes"][0]["x0"] == 3


def test_every_figure_is_one_that_plotly_accepts(run_dir):
    """The page is written from plain JSON, which plotly has not checked; here it does."""
    for found in plots(write_report(run_dir).read_text()):
        figure = Figure(found["data"], found["layout"])
        assert figure.layout.template.layout.plot_bgcolor == "white"
        assert figure.layout.xaxis.title.text in ("step", "responses")
        assert [mark.text for mark in figure.layout.annotations] == ["rebirth"]


def test_a_panel_without_its_metrics_is_left_out(run_dir):
    titles = {p["title"] for p in plots(write_report(run_dir).read_text())}
    assert "Reward" in titles
    assert titles.isdisjoint({"Entropy", "Effective sample size", "Corrections"})


def test_the_header_names_the_parts_and_the_overrides_safely(run_dir):
    page = write_report(run_dir).read_text()
    assert "<td>loss</td><td>remix</td><td>algorithms.remix:ReMix</td>" in page
    assert "<code>train.steps=4 loss.&lt;b&gt;=1</code>" in page
    assert "seed: 7" in page


def test_the_table_holds_first_last_lowest_and_highest(run_dir):
    page = write_report(run_dir).read_text()
    row = "".join(f"<td>{v}</td>" for v in ("reward/mean", "0.1", "0.4", "0.1", "0.4"))
    assert row in page


def test_the_page_loads_nothing_from_elsewhere(run_dir):
    page = write_report(run_dir).read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert "plotly.js v" in page


def test_metrics_alone_make_a_report_also_with_a_value_that_is_not_a_number(tmp_path):
    run_dir = write_run(tmp_path / "r", [{"step": 1, "reward/mean": float("nan")}])
    assert [p["title"] for p in plots(write_report(run_dir).read_text())] == ["Reward"]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "holds no run"), ("", "has not logged"), ('{"step": 1}\nnot json\n', "not JSON")],
)
def test_a_folder_without_readable_metrics_is_the_users_mistake(tmp_path, text, words):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        write_report(tmp_path)


def test_a_comparison_overlays_the_runs_on_three_axes(run_dir, tmp_path):
    records = [evaluation(0, 0.1), training(1), evaluation(1, 0.4)]
    other = write_run(tmp_path / "grpo-1", records, overrides="plugins=[<i>.py]\n")
    page = compare_report([run_dir, other], tmp_path / "both.html").read_text()
    ends = {
        p["title"].removeprefix("Held-out accuracy over "): {
            t["name"]: t["x"][-1] for t in p["data"]
        }
        for p in plots(page)
    }
    names = ("remix-1 eval/pass@1", "grpo-1 eval/pass@1")
    assert ends == {
        "responses": dict(zip(names, (128, 32), strict=True)),
        "steps": dict(zip(names, (4, 1), strict=True)),
        "seconds of training": dict(zip(names, (6.0, 1.5), strict=True)),
    }
    assert "<td>plugins=[&lt;i&gt;.py]</td>" in page


def test_runs_whose_folders_share_a_name_are_told_apart(tmp_path):
    dirs = [write_run(tmp_path / p / "0", [evaluation(0, 0.1)]) for p in ("a", "b")]
    page = compare_report(dirs, tmp_path / "both.html").read_text()
    assert len({t["name"] for t in plots(page)[0]["data"]}) == 2


def test_runs_without_an_evaluation_cannot_be_compared(tmp_path):
    run_dir = write_run(tmp_path / "r", [training(1)])
    with pytest.raises(UserError, match=r"none of.*evaluation"):
        compare_report([run_dir], tmp_path / "out.html")
