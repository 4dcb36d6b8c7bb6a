"""What the sample browser reads of a step: bounded, rounded, and no more than was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlkit.pages import sample_payloads
from rlkit.pages.sample_payloads import cut, is_cut, rounded, step_payload, tokens_payload
from rlkit.runs.token_file import token_file
from tests.pages.sample_runs import record, response, write_step


def test_a_response_in_turns_is_shown_turn_by_turn(tmp_path: Path) -> None:
    """Each with whose it is; a long one is cut within."""
    turns = [
        {"role": "policy", "text": "call"},
        {"role": "environment", "text": "x" * 5000},
        {"role": "policy", "text": "done"},
    ]
    write_step(tmp_path, 3, [response(3, turns=turns), response(3, turns="none"), response(3)])
    first, second, third = (row["text"] for row in step_payload(tmp_path, 3)["rows"])
    assert [turn["role"] for turn in first] == ["policy", "environment", "policy"]
    assert first[0]["text"] == "call" and first[1]["text"][1] > 3000
    assert second == third == "The answer is 4."
    assert [is_cut(first), is_cut(first[:1]), is_cut(third)] == [True, False, False]
    assert is_cut(["a", 3, "b"])


def test_a_row_has_what_the_browser_filters_and_sorts_by(tmp_path: Path) -> None:
    old = {"sample_id": 7, "age": 2, "made_at": 1, "replayed": True, "advantage": -0.123456}
    write_step(tmp_path, 3, [response(3), response(3, "p1", group=1, **old)], [record(1, ["a"])])
    found = step_payload(tmp_path, 3)
    assert found["prompts"] == {"p0": "What is p0?", "p1": "What is p1?"}
    assert found["rows"][1] == {
        "row": 1,
        "group": 1,
        "id": 7,
        "prompt": "p1",
        "text": "The answer is 4.",
        "length": 3,
        "source": "policy",
        "made": 1,
        "age": 2,
        "replayed": True,
        "finish": "stop",
        "reward": 1,
        "parts": {"exact": 1},
        "advantage": -0.1235,
        "tokens": True,
    }
    assert found["rows"][0]["tokens"] is False
    assert (found["step"], found["more"]) == (3, 0)


def test_a_run_of_an_older_version_can_be_browsed(tmp_path: Path) -> None:
    known = ("prompt_id", "prompt", "response", "reward", "rewards", "age", "finish_reason")
    rows = [response(2, prompt) for prompt in ("a", "a", "b", "a")]
    rows[3]["age"] = 1
    write_step(tmp_path, 2, [{name: row[name] for name in known} for row in rows])
    found = step_payload(tmp_path, 2)["rows"]
    assert [row["group"] for row in found] == [0, 0, 1, 2]
    assert [row["replayed"] for row in found] == [False, False, False, True]
    assert all(row["advantage"] is None and row["id"] is None for row in found)


def test_turns_of_a_chat_stay_turns(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x" * 9000}]
    write_step(tmp_path, 1, [response(1, prompt=chat)])
    system, user = step_payload(tmp_path, 1)["prompts"]["p0"]
    assert system == {"role": "system", "text": "Be brief."}
    assert user["role"] == "user" and user["text"][1] == 5000


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("0123456789", 5) == ["012", 5, "89"]
    assert cut("a" * 60 + "b" * 40, 50) == ["a" * 30, 50, "b" * 20]


@pytest.mark.slow
def test_texts_of_a_step_are_bounded_together(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [response(1, response="y" * 1_000_000) for _ in range(400)])
    rows = step_payload(tmp_path, 1)["rows"]
    assert len(rows) == 400
    shown = [len(row["text"][0]) + len(row["text"][2]) for row in rows]
    assert shown == [2000] * 400, "800,000 characters in all"
    assert len(json.dumps(step_payload(tmp_path, 1))) < 1_000_000


def test_more_responses_than_can_be_shown_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_step(tmp_path, 1, [response(1)] * 5, [record(4, ["a"])])
    found = step_payload(tmp_path, 1, most=3)
    assert len(found["rows"]) == 3 and found["more"] == 2


def test_a_response_of_which_only_tokens_were_kept_is_shown_by_them(tmp_path: Path) -> None:
    """completions.max_per_step is 1 here."""
    write_step(tmp_path, 1, [response(1)], [record(0, ["a"]), record(6, ["b", "c"], prompt_id="q")])
    first, second = step_payload(tmp_path, 1)["rows"]
    assert first["tokens"] and second["tokens"]
    assert (second["row"], second["prompt"], second["text"]) == (6, "q", "bc")
    assert "q" not in step_payload(tmp_path, 1)["prompts"]


def test_tokens_hold_what_was_recorded_and_no_other(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [response(1)], [record(0, ["a", "b", "c"], prox_logp=None)])
    assert tokens_payload(tmp_path, 1)["rows"] == {
        "0": {
            "count": 3,
            "left_out": [3, 0],
            "passes": 1,
            "skipped": False,
            "ids": [0, 1, 2],
            "pieces": ["a", "b", "c"],
            "version": 1,
            "mask": 1,
            "adv": 0.5,
            "behavior": [-0.25, -0.5, -0.75],
            "logp": [-0.5, -1, -1.5],
            "ratio": [1.025, 1.05, 1.075],
            "clipped": [0, 1, 0],
        }
    }


def test_the_tokens_of_a_long_response_keep_its_beginning_and_its_end(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [response(1)], [record(0, [str(i) for i in range(10)])])
    (found,) = tokens_payload(tmp_path, 1, most=5)["rows"].values()
    assert found["pieces"] == ["0", "1", "2", "8", "9"] and found["ids"] == [0, 1, 2, 8, 9]
    assert found["left_out"] == [3, 5] and found["count"] == 10
    assert found["logp"] == [-0.5, -1, -1.5, -4.5, -5]


def test_tokens_of_all_responses_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_payloads, "MOST_TOKENS", 4)
    records = [record(i, ["a"] * 9) for i in range(3)]
    write_step(tmp_path, 1, [response(1)] * 3, records)
    for most, each in ((100, 4), (6, 2), (1, 1)):
        rows = tokens_payload(tmp_path, 1, most)["rows"]
        assert [len(row["pieces"]) for row in rows.values()] == [each] * 3


def test_a_damaged_token_file_costs_the_tokens_alone(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [response(1)])
    token_file(tmp_path, 1).write_bytes(b"PAR1")
    assert [row["tokens"] for row in step_payload(tmp_path, 1)["rows"]] == [False]
    assert tokens_payload(tmp_path, 1)["rows"] == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.1235),
        (1.0, 1),
        (-2, -2),
        (1.00004, 1),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
        ("1", None),
        (True, None),
        (1e-9, 1e-9),
        (123456.0, 123500),
    ],
)
def test_numbers_are_shown_to_four_digits(value: object, shown: object) -> None:
    assert rounded(value) == shown
