"""`rlkit eval MODEL --on ...` as a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.cli import Result, command

KILLER = Path(__file__).parents[1] / "killer.py"
SUMS = (
    *("eval", "embedded", "--on", "arithmetic", "--samples", "4", "--greedy"),
    *("--limit", "8", "--chunk", "8", "--max-tokens", "14", "--temperature", "1"),
)
"""8 problems in chunks of 2, each with 4 samples and a greedy response."""


def on(folder: Path, *arguments: str, kill: str = "") -> Result:
    env = {"KILL": kill}
    return command("rlkit.__main__", *SUMS, *arguments, f"plugins=[{KILLER}]", cwd=folder, env=env)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def samples(folder: Path, name: str = "arithmetic") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder / "samples" / name).to_pylist()
    return sorted(rows, key=lambda row: (row["problem"], row["greedy"], row["sample"]))


def error_of(refused: Result) -> str:
    """The error, a single line at the end."""
    *before, last = refused.err.splitlines()
    assert before in ([], ["Loading embedded"]) and refused.out == ""
    return last


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert on(folder, "--out", "out").status == 0
    return folder / "out"


def test_every_sample_is_kept_and_the_figures_are_theirs(whole: Path) -> None:
    rows = samples(whole)
    assert len(rows) == 8 * 5 and {row["problem"] for row in rows} == {*range(8)}
    drawn = [row for row in rows if not row["greedy"]]
    found = results(whole)["benchmarks"]["arithmetic"]["figures"]
    assert found["pass@1"]["value"] == pytest.approx(sum(r["right"] for r in drawn) / 32)
    assert found["pass@1"]["n"] == 8 and "pass@4" in found and "maj@4" not in found
    solved = {row["problem"] for row in drawn if row["right"]}
    assert found["pass@4"]["value"] == pytest.approx(len(solved) / 8)
    once = [row["right"] for row in rows if row["greedy"]]
    assert found["greedy"]["value"] == pytest.approx(sum(once) / 8)
    assert found["length"]["value"] == pytest.approx(sum(r["tokens"] for r in drawn) / 32)
    assert (whole / "evaluation.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["forward:40", "reward:4"])
def test_killed_and_started_again_it_is_the_uninterrupted_one(
    kill: str, whole: Path, tmp_path: Path
) -> None:
    assert on(tmp_path, "--out", "out", kill=kill).status != 0
    out = tmp_path / "out"
    before = sorted((out / "samples" / "arithmetic").glob("*.parquet"))
    assert 0 < len(before) < 4 and not (out / "results.json").exists()
    times = [path.stat().st_mtime_ns for path in before]
    assert on(tmp_path, "--out", "out").status == 0
    assert times == [path.stat().st_mtime_ns for path in before]
    assert samples(out) == samples(whole) and results(out) == results(whole)


def test_other_settings_are_refused_in_one_line(whole: Path) -> None:
    refused = on(whole.parent, "--out", "out", "seed=1")
    assert refused.status == 2 and "--out" in error_of(refused)
    assert "seed was 0, and is 1" in error_of(refused)
    again = on(whole.parent, "--out", "out", "--k", "1,3", kill="reward:1")
    assert again.status == 0, again.err
    assert "pass@3" in results(whole)["benchmarks"]["arithmetic"]["figures"]


def test_a_file_is_marked_by_the_chosen_reward_beside_a_task(tmp_path: Path) -> None:
    rows = [{"prompt": f"1+2+3+4+{i}=", "answer": f"{10 + i}"} for i in range(1, 5)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "last.py").write_text(
        "def last(prompts, completions, answer, **columns):\n"
        "    return [float(c.endswith('#' + a)) for c, a in zip(completions, answer)]\n"
    )
    asked = (
        *("eval", "embedded", "reward=[./last.py:last]", "--on", "sums.jsonl,arithmetic"),
        *("--temperature", "0", "--limit", "3", "--out", "out"),
    )
    done = command("rlkit.__main__", *asked, cwd=tmp_path)
    assert done.status == 0, done.err
    found = results(tmp_path / "out")
    assert found["benchmarks"]["sums"]["settings"]["reward"] == "last"
    assert found["benchmarks"]["arithmetic"]["settings"]["reward"] == "arithmetic"
    each = [b["figures"]["greedy"]["value"] for b in found["benchmarks"].values()]
    assert found["macro"]["greedy"]["value"] == pytest.approx(sum(each) / 2)
    for row in samples(tmp_path / "out", "sums"):
        assert row["right"] == row["response"].endswith("#" + row["answer"])
    assert "macro average" in done.out and "macro" not in done.err
    assert f"{Path('out', 'results.json')}  {Path('out', 'evaluation.html')}" in done.err
    with (tmp_path / "last.py").open("a") as file:
        file.write("# other marks\n")
    refused = command("rlkit.__main__", *asked, cwd=tmp_path)
    assert refused.status == 2 and "sums: reward.last.source was" in error_of(refused)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("embedded", "--on", "math50"), "Did you mean 'math500'"),
        (("embedded", "--on", "math500", "--data", "."), "no file of math500"),
        (("embedded", "--on", "arithmetic", "--max-tokens", "9999"), "lower it"),
        (("embedded", "--on", "arithmetic", "--k", "2"), "--samples 2"),
        (("embedded", "--samples", "x", "--on", "arithmetic"), "not a whole number"),
        (("embedded", "--key", "remix"), "add --on or --suite"),
        (("embedded", "--on", "words.jsonl"), "cannot read words"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "words.jsonl").write_text('{"prompt": "What is 1+1?", "answer": "2"}\n')
    refused = command("rlkit.__main__", "eval", *arguments, cwd=tmp_path)
    assert refused.status == 2 and said in error_of(refused)
    assert [path.name for path in tmp_path.iterdir()] == ["words.jsonl"]
