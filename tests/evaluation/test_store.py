"""Samples on disk: whole chunks, and settings that must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from rlkit.errors import UserError
from rlkit.evaluation.store import COLUMNS, SETTINGS, Store, safe


def sample(problem: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"problem": problem, "prompt_id": "p", "prompt": "?", "answer": "1", "greedy": False}
    row |= {"sample": 0, "response": "1", "right": True, "tokens": 3, "finish_reason": "stop"}
    return row | {"reflects": False} | more


def settings(**more: Any) -> dict[str, Any]:
    return {"model": "m", "temperature": 0.6, "benchmarks": {"a": {"samples": 4}}} | more


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = sample(0, id="x", response="é\u202e</script>\n", given="1", reward=0.5, **{"class": 2})
    store.write("a", 0, [row])
    store.write("a", 1, [sample(1)])
    assert store.has("a", 1) and not store.has("a", 2) and not store.has("b", 0)
    assert store.read("a", 2, tuple(COLUMNS)) == [row, sample(1)]
    assert store.read("a", 2, ("problem",), problems=[1]) == [{"problem": 1}]
    assert parquet.read_table(tmp_path / "samples" / "a").num_rows == 2


def test_what_happened_to_rewards_is_kept_with_the_chunks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", 0, [sample(0)], {"timeouts": 2, "lost": 1})
    store.write("a", 1, [sample(1)], {"timeouts": 1})
    store.write("a", 2, [sample(2)])
    assert store.counts("a", 3) == {"timeouts": 3, "lost": 1} and store.counts("a", 0) == {}


def test_other_settings_are_refused_and_other_benchmarks_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.agree(settings())
    store.agree(settings(benchmarks={"b": {"samples": 1}}))
    with pytest.raises(UserError, match=r"temperature was 0.6, and is 0.1\. Choose another folder"):
        store.agree(settings(temperature=0.1))
    with pytest.raises(UserError, match="a: samples was 4, and is 8"):
        store.agree(settings(benchmarks={"a": {"samples": 8}}))
    with pytest.raises(UserError, match="top_k was null, and is 5"):
        store.agree(settings(top_k=5))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", 0, [sample(0)])
    store.file("a", 0).write_bytes(store.file("a", 0).read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as Parquet: .*remove it"):
        store.read("a", 1)
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(UserError, match="--out"):
        store.agree(settings())


def test_a_name_stays_inside_the_folder_and_shares_it_with_no_other(tmp_path: Path) -> None:
    found = [Store(tmp_path).file(name, 0).parent for name in ("a b", "a_b", "a/b")]
    assert len({*found}) == 3 and found[1].name == "a_b"
    assert [safe(n) for n in ("../x", "a/b", "..", "math500")] == [*("_x", "a_b", "_", "math500")]
