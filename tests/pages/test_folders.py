"""Run folders as they are named on the command line."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.pages.folders import run_folders
from tests.pages.written import write_run


def test_a_sweep_stands_for_its_jobs_in_their_order(tmp_path):
    for job in (10, 9, 0):
        write_run(tmp_path / "sweep" / str(job), {0: 0.1})
    (tmp_path / "sweep" / "notes").mkdir()
    found = run_folders([tmp_path / "sweep"])
    assert [path.name for path in found] == ["0", "9", "10"]


def test_a_run_that_is_named_twice_is_opened_once(tmp_path):
    runs = [write_run(tmp_path / name, {0: 0.1}) for name in ("a-1", "b-1")]
    (tmp_path / "link").symlink_to(runs[0])
    assert run_folders([runs[1], str(tmp_path / "*-1"), tmp_path / "link"]) == [runs[1], runs[0]]


def test_what_holds_no_run_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match="holds no run: there is no metrics.jsonl"):
        run_folders([tmp_path])
    for missing in (tmp_path / "nowhere", tmp_path / "no*where"):
        with pytest.raises(UserError, match="does not exist"):
            run_folders([missing])
