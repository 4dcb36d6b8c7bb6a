"""The page of a comparison, as a file and in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from rlkit.errors import UserError
from rlkit.pages.comparison import csv_text, read_runs
from rlkit.pages.comparison_page import DRAWN, data, page, slim, write_comparison
from rlkit.pages.figures import Question, compare
from tests.browser import PHONE, Browser
from tests.pages.written import write_pair, write_run

HOSTILE = "</script><script>document.title='taken'</script>{{7*7}}\u202eabc"
FIVE = [0.4, 0.5, 0.6, 0.5, 0.5]


def compared(*folders):
    return compare(read_runs(folders))


def cells(text: str) -> list[list[str]]:
    """The table's cells without their tags."""
    rows = re.findall(r"<tr>(.*?)</tr>", text.split('class="groups"')[1].split("</table>")[0])
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)]
        for row in rows
    ]


def test_the_table_has_score_cost_and_difference(tmp_path):
    text = page(compared(*write_pair(tmp_path, FIVE, [0.9] * 5)))
    assert cells(text) == [
        ["group", "seeds", "score", "responses to 0.82", "seconds to 0.82", "minus loss=grpo"],
        ["loss=grpo", "5", "0.500 [0.440, 0.560]", "not reached", "not reached", "baseline"],
        [
            *("loss=remix", "5", "0.900 [0.900, 0.900]", "40", "8"),
            "+0.400 [+0.340, +0.460], by seedbetter",
        ],
    ]
    assert "The target is 0.82, 90% of the best group&#x27;s gain." in text
    asked = compare(read_runs([tmp_path]), Question(target=0.5))
    assert "The target is 0.5, as asked." in page(asked)
    flat = compared(write_run(tmp_path / "flat", {0: 0.3, 2: 0.3}))
    assert "No group gained anything, so there is no target." in page(flat)


def test_each_plot_has_median_and_middle_half_over_each_axis(tmp_path):
    """Seeds end at 0.2, 0.4, 0.6, 0.8 and 1.0, so the quartiles are 0.4, 0.6 and 0.8."""
    found = data(compared(*write_pair(tmp_path, [0.2, 0.4, 0.6, 0.8, 1.0], [0.5])))
    scores = found["plots"][0]
    assert scores["name"] == "eval/pass@1"
    for axis, x in (
        ("step", [0, 2, 4]),
        ("rollouts/total", [0, 20, 40]),
        ("time/total", [0, 4, 8]),
    ):
        grpo, remix = scores["over"][axis]
        assert grpo["x"] == remix["x"] == x
        assert (grpo["low"][-1], grpo["y"][-1], grpo["high"][-1]) == (0.4, 0.6, 0.8)
        assert remix["y"] == [0.1, 0.3, 0.5] and "low" not in remix
    names = [plot["name"] for plot in found["plots"]]
    assert names == ["eval/pass@1", "reward/mean", "completions/mean_length"]


def test_a_group_has_points_where_it_was_evaluated_alone(tmp_path):
    """A point between two evaluations would look like one."""
    often = write_run(tmp_path / "a", {0: 0.1, 1: 0.2, 4: 0.5}, settings={"k": 1})
    seldom = write_run(tmp_path / "b", {0: 0.1, 4: 0.5}, settings={"k": 2})
    first, second = data(compared(often, seldom))["plots"][0]["over"]["step"]
    assert (first["x"], second["x"]) == ([0, 1, 4], [0, 4])


def test_a_slim_run_is_compared_as_the_whole_one_is(tmp_path):
    runs = read_runs(write_pair(tmp_path, FIVE, [0.9] * 5))
    whole = page(compare(runs))
    assert page(compare([slim(run) for run in runs])) == whole
    noisy = [replace(run, records=[{**r, "own/metric": 1.0} for r in run.records]) for run in runs]
    assert page(compare([slim(run) for run in noisy])) == whole
    assert "own/metric" in slim(noisy[0], "own/metric").records[0]
    assert "own/metric" not in slim(noisy[0]).records[0]


def test_the_table_is_in_the_page_as_csv(tmp_path):
    comparison = compared(*write_pair(tmp_path, FIVE, FIVE))
    assert data(comparison)["csv"] == csv_text(comparison)


def test_a_metric_that_is_no_score_is_drawn_once(tmp_path):
    runs = read_runs(write_pair(tmp_path, [0.5], [0.6]))
    names = [p["name"] for p in data(compare(runs, Question(metric="reward/mean")))["plots"]]
    assert sorted(names) == ["completions/mean_length", "eval/pass@1", "reward/mean"]


def test_many_groups_are_all_in_the_table_and_some_in_the_plots(tmp_path):
    runs = [
        write_run(tmp_path / str(k), {0: 0.1, 2: 0.2}, settings={"k": k}) for k in range(DRAWN + 2)
    ]
    comparison = compared(*runs)
    text = page(comparison)
    assert len(cells(text)) == 1 + DRAWN + 2
    assert f"the plots show the first {DRAWN} of {DRAWN + 2} groups" in text
    assert len(data(comparison)["plots"][0]["over"]["step"]) == DRAWN


def test_the_file_leads_to_the_reports_that_are_there(tmp_path):
    runs = write_pair(tmp_path / "runs & more", [0.5], [0.7])
    (runs[1] / "report.html").write_text("")
    (tmp_path / "out").mkdir()
    out = write_comparison(compared(*runs), tmp_path / "out" / "both.html")
    links = re.findall(r'href="([^"]+)"', out.read_text())
    assert links == ["../runs%20%26%20more/remix-0/report.html"]
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_comparison(compared(*runs), tmp_path / "taken" / "both.html")


def test_a_thousand_steps_of_ten_runs_stay_small(tmp_path):
    scores = {step: step / 2000 for step in range(0, 1001, 50)}
    runs = [
        write_run(tmp_path / f"{k}-{s}", scores, seed=s, settings={"k": k})
        for k in range(2)
        for s in range(5)
    ]
    assert len(page(compared(*runs))) < 1_500_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_whole_in_a_browser_at_any_width(browser: Browser, tmp_path, theme):
    out = write_comparison(
        compared(*write_pair(tmp_path, FIVE, [0.9] * 5)), tmp_path / "comparison.html"
    )
    browser.scheme(theme)
    browser.open(out)
    assert browser.wait("document.querySelectorAll('canvas').length") == 3
    assert browser.texts("h1") == ["Runs compared"]
    assert not browser.is_clipped()
    browser.size(PHONE)
    assert not browser.is_clipped()
    browser.check(out.as_uri())


def test_the_axis_can_be_chosen_and_the_table_be_downloaded(browser: Browser, tmp_path):
    out = write_comparison(compared(*write_pair(tmp_path, FIVE, FIVE)), tmp_path / "c.html")
    browser.open(out)
    assert browser.run("return rlkit.state.x") == "rollouts/total"
    browser.type("#axis", "seconds")
    assert browser.run("return rlkit.state.x") == "time/total"
    browser.run(
        "window.made = [];"
        "URL.createObjectURL = (blob) => (blob.text().then((text) => made.push(text)), 'blob:x')"
    )
    browser.click("#csv")
    assert browser.wait("made.length && made[0]").startswith("group,metric,seeds")


def test_what_a_user_wrote_is_text(browser: Browser, tmp_path):
    """An override with a script, template syntax and a character that turns the direction."""
    run = write_run(tmp_path / "r", {0: 0.1, 2: 0.5}, overrides=[f"task={HOSTILE}"])
    other = write_run(tmp_path / "s", {0: 0.1, 2: 0.5}, overrides=["task=b"])
    for each in (run, other):
        (each / "config.yaml").unlink()
    out = write_comparison(compared(run, other), tmp_path / "c.html")
    browser.open(out)
    browser.wait("document.querySelectorAll('canvas').length")
    assert browser.run("return document.title").startswith("Runs compared")
    assert any("</script>" in cell and r"\u202e" in cell for cell in browser.texts(".groups td"))
    assert "\u202e" not in browser.run("return document.body.innerText")
    browser.check(out.as_uri())
    assert json.loads(out.read_text().split('id="data">')[1].split("</script>")[0])["plots"]
