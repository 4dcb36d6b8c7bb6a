"""Several runs on one page."""

from __future__ import annotations

import json
import re

import pytest
from rlkit.pages.compare import compare_report

from rlkit.errors import UserError
from tests.run_folders import evaluation, remix_run, training, write_run


def plots(page: str) -> dict[str, dict[str, list]]:
    """Title -> label -> [x, y] of every line."""
    found = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    return {
        p["title"]: {line["label"]: line["points"] for line in p["lines"]} for p in found["plots"]
    }


def test_a_comparison_overlays_the_runs_on_three_axes(tmp_path):
    records = [evaluation(0, 0.1), training(1), evaluation(1, 0.4)]
    other = write_run(tmp_path / "grpo-1", records, overrides="plugins=[<i>.py]\n")
    page = compare_report([remix_run(tmp_path / "remix-1"), other], tmp_path / "both.html")
    names = ("remix-1 eval/pass@1", "grpo-1 eval/pass@1")
    ends = {
        title: tuple(lines[name][0][-1] for name in names)
        for title, lines in plots(page.read_text()).items()
    }
    assert ends == {
        "Held-out score over responses": (128, 32),
        "Held-out score over steps": (4, 1),
        "Held-out score over seconds of training": (6, 1.5),
    }
    assert "<td>plugins=[&lt;i&gt;.py]</td>" in page.read_text()


def test_runs_whose_folders_share_a_name_are_told_apart(tmp_path):
    dirs = [write_run(tmp_path / p / "0", [evaluation(0, 0.1)]) for p in ("a", "b")]
    page = compare_report(dirs, tmp_path / "both.html").read_text()
    assert {len(lines) for lines in plots(page).values()} == {2}


def test_runs_without_an_evaluation_cannot_be_compared(tmp_path):
    run_dir = write_run(tmp_path / "r", [training(1)])
    with pytest.raises(UserError, match=r"none of.*evaluation"):
        compare_report([run_dir], tmp_path / "out.html")
