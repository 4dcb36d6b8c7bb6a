"""The sample browser: what lies in a page, what beside it, and that both can be looked through."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlkit.pages import samples
from rlkit.pages.html import as_json, document
from rlkit.pages.samples import (
    EMBEDDED,
    SCRIPTS,
    STYLES,
    best_and_worst,
    embedded_samples,
    sample_script,
    write_samples,
)
from tests.browser import PHONE, Browser
from tests.pages.sample_runs import HOSTILE, hostile_run, record, response, write_step


def payload_of(script: str | None) -> tuple[str, Any]:
    """The name and the payload that a script puts."""
    assert script is not None and script.isascii()
    found = re.fullmatch(r'rlkit\.put\("([\w-]+)",(.*)\);\n', script)
    assert found is not None
    return found[1], json.loads(found[2])


def small_run(run: Path) -> None:
    """Three steps; the prompt p0 is trained in the first and the last."""
    write_step(run, 1, [response(1), response(1, reward=0.0)])
    write_step(run, 2, [response(2, "p1", reward=0.25, age=1, made_at=1, replayed=True)])
    write_step(
        run,
        10,
        [response(10, reward=0.5, response="Four."), response(10, "p2", group=1, reward=0.75)],
        [record(0, ["Fo", "ur", "."])],
    )


def test_the_index_has_a_line_per_step(tmp_path: Path) -> None:
    small_run(tmp_path)
    assert payload_of(sample_script(tmp_path, "samples-index")) == (
        "samples-index",
        {
            "steps": [1, 2, 10],
            "responses": [2, 1, 2],
            "reward": [0.5, 0.25, 0.625],
            "replayed": [0, 1, 0],
            "oldest": [0, 1, 0],
            "tokens": [0, 0, 1],
        },
    )


def test_prompts_know_the_steps_they_were_trained_in(tmp_path: Path) -> None:
    small_run(tmp_path)
    _, found = payload_of(sample_script(tmp_path, "samples-prompts"))
    assert found["prompts"] == [
        ["p0", "What is p0?", [1, 10], [0.5, 0.5]],
        ["p1", "What is p1?", [2], [0.25]],
        ["p2", "What is p2?", [10], [0.75]],
    ]


def test_a_preview_is_of_the_last_turn_and_short(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": " a\n b " + "c" * 999}]
    write_step(tmp_path, 1, [response(1, prompt=chat)])
    _, found = payload_of(sample_script(tmp_path, "samples-prompts"))
    assert found["prompts"][0][1] == "a b " + "c" * 56


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """A server asks while a run writes."""
    small_run(tmp_path)
    assert samples.index_payload(tmp_path)["responses"] == [2, 1, 2]
    write_step(tmp_path, 2, [response(2)] * 7)
    assert samples.index_payload(tmp_path)["responses"] == [2, 7, 2]


@pytest.mark.parametrize(
    "name",
    [
        "samples-step-3",
        "samples-tokens-1",
        "samples-step-01",
        "samples-step-1.js",
        "samples-step-../1",
        "../samples-index",
        "samples-step-",
        "samples-step-\N{ARABIC-INDIC DIGIT ONE}",
        "metrics",
        "",
    ],
)
def test_there_is_no_other_script(tmp_path: Path, name: str) -> None:
    small_run(tmp_path)
    assert sample_script(tmp_path, name) is None


def test_a_report_writes_what_a_server_would_answer(tmp_path: Path) -> None:
    small_run(tmp_path)
    write_step(tmp_path, 11, [response(11)])
    write_samples(tmp_path)
    (tmp_path / "completions" / "step-11.jsonl").unlink()
    (tmp_path / "report" / "other.js").touch()
    write_samples(tmp_path)
    names = ["samples-index", "samples-prompts", *(f"samples-step-{s}" for s in (1, 2, 10))]
    names.append("samples-tokens-10")
    folder = tmp_path / "report"
    assert {path.name for path in folder.iterdir()} == {*(f"{n}.js" for n in names), "other.js"}
    for name in names:
        text = (folder / f"{name}.js").read_text()
        assert text == sample_script(tmp_path, name) and payload_of(text)[0] == name


def test_a_run_without_responses_leaves_nothing(tmp_path: Path) -> None:
    write_samples(tmp_path)
    assert not (tmp_path / "report").exists() and embedded_samples(tmp_path) is None


def test_the_best_and_the_worst_group_are_the_last_of_equals(tmp_path: Path) -> None:
    for step, (first, second) in enumerate(((1.0, 0.0), (1.0, 0.5), (0.0, 0.5)), start=1):
        rows = [response(step, "a", reward=first), response(step, "b", group=1, reward=second)]
        write_step(tmp_path, step, rows)
    assert best_and_worst(tmp_path, [1, 2, 3]) == [("Best group", 2, "a"), ("Worst group", 3, "a")]
    assert best_and_worst(tmp_path, [1]) == [("Best group", 1, "a"), ("Worst group", 1, "b")]
    write_step(tmp_path, 4, [response(4)])
    assert best_and_worst(tmp_path, [4]) == [("Best group", 4, "p0")]


def test_a_page_holds_the_last_step_and_the_picked_groups(tmp_path: Path) -> None:
    small_run(tmp_path)
    found = embedded_samples(tmp_path)
    assert found is not None
    assert found["last"] == 10 and found["index"]["steps"] == [1, 2, 10]
    assert found["picks"] == [
        {"title": "Best group", "step": 10, "prompt": "p2"},
        {"title": "Worst group", "step": 2, "prompt": "p1"},
    ]
    assert set(found["steps"]) == {"10", "2"} and found["steps"]["2"]["partial"]
    assert not found["steps"]["10"]["partial"], "nothing of it was cut"
    assert list(found["tokens"]["10"]["rows"]) == ["0"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["y" * 1_000_000, "\N{CJK UNIFIED IDEOGRAPH-597D}" * 9000])
def test_what_a_page_holds_is_bounded(tmp_path: Path, text: str) -> None:
    """600 responses a step here, each long, and many steps."""
    rows = [response(1, f"p{i}", group=i, response=text[:9000], prompt=text) for i in range(200)]
    for step in range(1, 4):
        records = [record(i, [text[:50]] * 400) for i in range(4)]
        write_step(tmp_path, step, rows[: 3 * step**4], records)
    found = embedded_samples(tmp_path)
    assert found is not None and found["steps"]["3"]["rows"]
    assert len(as_json(found)) <= EMBEDDED


def test_a_long_index_lies_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_run(tmp_path)
    monkeypatch.setattr(samples, "INDEX_IN_PAGE", 10)
    found = embedded_samples(tmp_path)
    assert found is not None and found["index"] is None


# ---- in a browser


def page_of(run: Path) -> Path:
    """A page that is nothing but samples, with its scripts beside it."""
    write_samples(run)
    body = (
        '<div class="switches"><div id="switches"><nav id="index"></nav></div></div><main></main>'
    )
    page = run / "report.html"
    page.write_text(document("Samples", body, {"samples": embedded_samples(run)}, SCRIPTS, STYLES))
    return page


def opened(browser: Browser, run: Path) -> None:
    browser.open(page_of(run))
    browser.wait("document.querySelector('.sample')")


def choose(browser: Browser, label: str, value: str) -> None:
    """Choose an option of the select, or fill the field, whose label begins so."""
    browser.run(
        "const label = [...document.querySelectorAll('.samples label')]"
        ".find((found) => found.textContent.startsWith(arguments[0]));"
        "const field = label.querySelector('select,input'); field.value = arguments[1];"
        "field.dispatchEvent(new Event(field.tagName === 'INPUT' ? 'input' : 'change'));",
        label,
        value,
    )


def press(browser: Browser, words: str) -> None:
    """Press the first button whose text begins so."""
    browser.run(
        "[...document.querySelectorAll('.samples button')]"
        ".find((found) => found.textContent.startsWith(arguments[0])).click();",
        words,
    )


def count(browser: Browser, number: int) -> None:
    browser.wait(f"document.querySelectorAll('.sample').length === {number}")


def test_a_page_works_without_the_scripts_beside_it(browser: Browser, tmp_path: Path) -> None:
    small_run(tmp_path)
    page = page_of(tmp_path)
    for path in (tmp_path / "report").iterdir():
        path.unlink()
    browser.open(page)
    count(browser, 2)
    browser.click(".sample .preview")
    browser.wait("document.querySelectorAll('.token').length === 3")
    press(browser, "Worst group (step 2)")
    browser.wait("document.querySelector('.step-head')?.textContent.startsWith('Step 2: 1 resp')")
    assert any("What is p1?" in text for text in browser.texts(".samples"))
    missing = [error for error in browser.errors() if "ERR_FILE_NOT_FOUND" not in error]
    assert missing == []


def test_responses_are_filtered_and_sorted(browser: Browser, tmp_path: Path) -> None:
    old: dict[str, Any] = {"age": 3, "made_at": 2, "replayed": True}
    write_step(
        tmp_path,
        5,
        [
            response(5, reward=0.0, advantage=-1.0, response="low"),
            response(5, reward=0.5, advantage=0.0, response="middle", **old),
            response(5, "p1", group=1, advantage=1.0, response="high"),
            response(5, "p1", group=1, source="expert", response="shown", finish_reason="length"),
        ],
    )
    opened(browser, tmp_path)
    count(browser, 4)
    for label, value, neutral, found in (
        ("Text", "MIDD", "", ["middle"]),
        ("Text", "is p1", "", ["high", "shown"]),
        ("Source", "replayed", "all", ["middle"]),
        ("Source", "expert", "all", ["shown"]),
        ("Source", "fresh", "all", ["low", "high"]),
        ("Reward from", "0.4", "", ["middle", "high", "shown"]),
        ("to", "0.4", "", ["low"]),
        ("Age from", "1", "", ["middle"]),
        ("Advantage", "-1", "all", ["low"]),
        ("Advantage", "0", "all", ["middle"]),
        ("Ended by", "length", "all", ["shown"]),
        ("Sort by", "down", "group", ["low", "middle", "shown", "high"]),
        ("Sort by", "old", "group", ["middle", "low", "high", "shown"]),
    ):
        choose(browser, label, value)
        count(browser, len(found))
        browser.wait(
            "[...document.querySelectorAll('.sample .preview')].map((p) => p.textContent).join()"
            f" === '{','.join(found)}'"
        )
        choose(browser, label, neutral)
        count(browser, 4)
    browser.check("file:")


def test_a_group_is_shown_over_the_steps_it_was_trained_in(
    browser: Browser, tmp_path: Path
) -> None:
    for step in range(1, 8):
        write_step(tmp_path, step, [response(step, response=f"{step}a"), response(step)])
    opened(browser, tmp_path)
    press(browser, "side by side")
    browser.wait("document.querySelectorAll('.step-head').length === 4")
    assert [text[:7] for text in browser.texts(".step-head")] == [
        f"Step {n}:" for n in (7, 6, 5, 4)
    ]
    press(browser, "Show 3 earlier of 3 steps")
    browser.wait("document.querySelectorAll('.step-head').length === 7")
    count(browser, 14)
    press(browser, "←")
    count(browser, 2)
    press(browser, "Find a prompt")
    browser.wait("document.querySelector('.prompt-list .preview')")
    browser.type(".samples input[type=search]", "nothing like it")
    browser.wait("document.querySelectorAll('.prompt-list .preview').length === 0")
    browser.check("file:")


def test_a_step_is_loaded_when_it_is_looked_at(browser: Browser, tmp_path: Path) -> None:
    small_run(tmp_path)
    opened(browser, tmp_path)
    assert not [url for url in browser.requests() if "samples-step" in url]
    press(browser, "◀")
    browser.wait("document.querySelector('.note').textContent === '1 of 1 responses of step 2'")
    press(browser, "◀")
    browser.wait("document.querySelector('.note').textContent === '2 of 2 responses of step 1'")
    loaded = [url.rpartition("/")[2] for url in browser.requests() if "samples-" in url]
    assert loaded == ["samples-step-1.js"], "step 2 is the worst group's, and in the page"
    browser.check("file:")


def colors(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll('.token')].map((t) => t.style.backgroundColor)"
    return list(browser.run(script))


def test_tokens_are_colored_by_what_is_chosen_and_tell_their_numbers(
    browser: Browser, tmp_path: Path
) -> None:
    changes = {
        "ratio": [0.5, 1.0, 2.0],
        "advantages": [-1.0, 0.0, 1.0],
        "loss_mask": [True, True, False],
        "policy_version": [4, 4, 2],
        "passes": 2,
        "last_ratio": [2.0, 1.0, 0.5],
        "last_logp": [-1.0, -1.0, -1.0],
        "last_clipped": [False, False, True],
    }
    write_step(tmp_path, 4, [response(4)], [record(0, ["a", "\n", "c"], **changes)])
    opened(browser, tmp_path)
    browser.click(".sample .preview")
    browser.wait("document.querySelectorAll('.token').length === 3")

    def hues() -> list[str]:
        found = ((re.search(r"ramp(\d)", color), color) for color in colors(browser))
        return ["" if hue is None else hue[1] for hue, _ in found]

    assert hues() == ["0", "", "1"], "below 1, 1, above 1"
    for way, expected in (
        ("advantage", ["0", "", "1"]),
        ("mask", ["", "", "1"]),
        ("version", ["", "", "1"]),
        ("clipped", ["", "1", ""]),
        ("change", ["0", "0", "0"]),
    ):
        choose(browser, "Color tokens by", way)
        browser.wait(f"document.querySelector('.token-bar select').value === '{way}'")
        browser.wait("document.querySelectorAll('.token').length === 3")
        assert hues() == expected, way
    choose(browser, "in the", "last")
    choose(browser, "Color tokens by", "ratio")
    browser.wait("document.querySelectorAll('.token').length === 3")
    assert hues() == ["1", "", "0"]
    assert any("ratio as the loss sees it" in text for text in browser.texts(".token-legend"))
    assert browser.run("return document.querySelectorAll('.token.masked').length") == 1
    browser.click(".token")
    (tip,) = browser.texts(".token-tip")
    lines = tip.split("\n")
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    assert told["token"] == "1 of 3, id 0" and told["text"] == '"a"'
    assert told["log-prob"] == "-0.5" and told["sampled with"] == "-0.25"
    assert told["ratio"] == "0.5" and told["ratio, last pass"] == "2"
    assert told["start of the step"] == "\N{EN DASH}", "nothing read it"
    assert told["version"] == "weights of step 4" and told["trained"] == "yes"
    browser.check("file:")


def test_what_a_model_wrote_stays_text(browser: Browser, tmp_path: Path) -> None:
    hostile_run(tmp_path)
    opened(browser, tmp_path)
    browser.run("document.querySelectorAll('.sample .preview').forEach((p) => p.click())")
    for loaded in (False, True):  # from the page, then from beside it
        browser.wait("document.querySelectorAll('.token').length >= 18")
        shown = "\n".join(browser.texts(".samples"))
        assert HOSTILE[0] in shown and HOSTILE[3] in shown
        assert "\\u202egnp.exe\\u2066" in shown and "\\u001b[31m" in shown
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", shown)
        assert "characters left out" in shown
        if not loaded:
            press(browser, "Load the whole step")
            browser.wait(
                "!document.querySelector('.samples').textContent.includes('Load the whole')"
            )
    press(browser, "Find a prompt")
    browser.wait("document.querySelectorAll('.prompt-list .preview').length === 6")
    assert browser.run("return window.hacked") is None
    assert (
        browser.run("return document.querySelectorAll('.samples script, .samples img').length") == 0
    )
    browser.check("file:")


@pytest.mark.parametrize("size", [PHONE, (1280, 900)])
def test_nothing_is_clipped(browser: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    hostile_run(tmp_path)
    browser.size(size)
    opened(browser, tmp_path)
    browser.click(".sample .preview")
    browser.wait("document.querySelectorAll('.token').length >= 3")
    assert not browser.is_clipped()
    press(browser, "side by side")
    browser.wait("document.querySelector('.side-by-side .token')")
    browser.wait("!document.querySelector('.token-bar').hidden")
    assert not browser.is_clipped()
