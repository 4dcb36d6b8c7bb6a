"""What the live server shows of run folders that change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.pages.figures import Question
from rlkit.pages.site import READ, AbsentError, OutsideError, Site, check_links, last_step
from rlkit.runs.records import RunRecords, read_run
from tests.pages.written import write_pair, write_run


def site_of(*given: Path, **more) -> Site:
    return Site([str(path) for path in given], Question(), **more)


def log(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": step, "reward/mean": 0.5, "rollouts/total": 10 * step}) + "\n"
        )


def data_of(page: str) -> dict:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_a_page_is_made_anew_when_its_run_has_logged_and_only_then(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1, 2: 0.2}, steps=9)
    site = site_of(run)
    first = site.run(0)
    assert site.run(0) is first
    log(run, 3)
    second = site.run(0)
    assert data_of(first)["axes"]["step"] == [0, 1, 2]
    assert data_of(second)["axes"]["step"] == [0, 1, 2, 3]


def test_the_state_says_how_far_a_run_is_and_changes_when_it_logs(tmp_path):
    runs = write_pair(tmp_path, [0.5], [0.7])
    site = site_of(*runs)
    before, all_before = json.loads(site.state(0)), json.loads(site.state())
    assert before["words"] == "step 4" and all_before["words"] == "2 runs, step 4"
    log(runs[0], 5)
    assert json.loads(site.state(0))["words"] == "step 5"
    assert json.loads(site.state(0))["version"] != before["version"]
    assert json.loads(site.state())["version"] != all_before["version"]


def test_a_half_written_line_is_left_out(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1, 2: 0.2})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "reward/me')
    assert last_step(run) == 2
    assert data_of(site_of(run).run(0))["axes"]["step"] == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "{}\n", "no JSON\n", '{"step": null}\n', "3\n"])
def test_metrics_without_a_step_are_at_step_0(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    assert last_step(tmp_path) == 0
    assert last_step(tmp_path / "nowhere") == 0


def test_a_run_keeps_its_number_while_a_sweep_grows(tmp_path):
    write_run(tmp_path / "sweep" / "b", {0: 0.1})
    site = site_of(tmp_path / "sweep")
    assert [path.name for path in site.folders()] == ["b"]
    write_run(tmp_path / "sweep" / "a", {0: 0.1})
    assert {path.name: site.numbers[path] for path in site.folders()} == {"a": 1, "b": 0}


def test_the_overview_compares_the_runs_and_leads_to_their_pages(tmp_path):
    page = site_of(*write_pair(tmp_path, [0.5], [0.7])).overview()
    assert 'href="0/report.html"' in page and 'href="1/report.html"' in page
    assert "loss=remix" in page


def test_only_a_run_that_has_logged_is_read_anew_for_the_comparison(tmp_path, monkeypatch):
    runs = write_pair(tmp_path, [0.5], [0.7])
    site = site_of(*runs)
    read: list[Path] = []

    def reading(path: Path) -> RunRecords:
        read.append(path)
        return read_run(path)

    monkeypatch.setattr("rlkit.pages.site.read_run", reading)
    first = site.overview()
    log(runs[1], 5)
    second = site.overview()
    assert read == [*runs, runs[1]]
    assert first != second


def test_runs_that_cannot_be_compared_yet_are_told_in_words(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1})
    (run / "metrics.jsonl").write_text("")
    site = site_of(run)
    with pytest.raises(UserError, match="has not logged anything yet"):
        site.run(0)
    with pytest.raises(UserError, match="has not logged anything yet"):
        site.overview()
    with pytest.raises(UserError, match="holds no run"):
        site_of(tmp_path)


def test_parts_of_a_report_have_plain_names_and_come_from_the_script(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1})
    asked: list[tuple[Path, str]] = []

    def script(folder: Path, name: str) -> str | None:
        asked.append((folder, name))
        return "rlkit.put()" if name == "samples-1" else None

    site = site_of(run, script=script)
    assert site.part(0, "samples-1") == "rlkit.put()"
    for name in ("samples-2", "..", "a.b", "a/b", "", "x" * 101):
        with pytest.raises(AbsentError):
            site.part(0, name)
    assert asked == [(run, "samples-1"), (run, "samples-2")]
    with pytest.raises(AbsentError):
        site.part(1, "samples-1")
    with pytest.raises(AbsentError):
        site_of(run).part(0, "samples-1")


@pytest.mark.parametrize("name", READ)
def test_a_link_out_of_the_run_is_refused(tmp_path, name):
    outside = write_run(tmp_path / "outside", {0: 0.1})
    (outside / "completions").mkdir()
    run = write_run(tmp_path / "r", {0: 0.1})
    site = site_of(run, script=lambda folder, name: "read")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / name)
    for read in (
        lambda: site.run(0),
        site.overview,
        lambda: site.part(0, "x"),
        lambda: site.state(0),
    ):
        with pytest.raises(OutsideError, match=f"{name} is a link out of"):
            read()


def test_a_link_out_of_the_completions_is_refused_and_one_within_is_not(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1})
    (run / "completions").mkdir()
    (run / "completions" / "step-1.jsonl").write_text("")
    (run / "completions" / "latest").symlink_to("step-1.jsonl")
    check_links(run)
    (run / "completions" / "step-2.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(OutsideError):
        check_links(run)


def test_a_run_folder_that_is_a_link_is_opened_only_if_it_was_named(tmp_path):
    outside = write_run(tmp_path / "outside", {0: 0.1})
    write_run(tmp_path / "sweep" / "0", {0: 0.1})
    (tmp_path / "sweep" / "1").symlink_to(outside)
    assert [path.name for path in site_of(tmp_path / "sweep").folders()] == ["0"]
    assert [path.name for path in site_of(tmp_path / "sweep" / "1").folders()] == ["1"]


def test_only_the_newest_pages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("rlkit.pages.site.KEPT", 2)
    runs = [write_run(tmp_path / str(k), {0: 0.1}) for k in range(3)]
    site = site_of(*runs)
    pages = [site.run(k) for k in range(3)]
    assert site.run(2) is pages[2] and site.run(1) is pages[1]
    assert site.run(0) is not pages[0] and site.run(0) == pages[0]


def test_metrics_that_are_replaced_by_as_many_bytes_are_read_anew(tmp_path):
    run = write_run(tmp_path / "r", {0: 0.1})
    site = site_of(run)
    before = json.loads(site.state(0))["version"]
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace("0.1", "0.2"))
    os.utime(run / "metrics.jsonl", ns=(1, 1))
    assert json.loads(site.state(0))["version"] != before
