"""The page of an evaluation: what it shows, and that what models write stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlkit.evaluation.results import Result, results_of
from rlkit.evaluation.store import Store
from rlkit.pages.evaluation import LONGEST, PAGE, PROBLEMS, middle, write_page
from tests.browser import DESKTOP, PHONE, Browser
from tests.evaluation.test_store import sample

NASTY = "<script>alert(1)</script><img src=x onerror=y>{{7*7}}\u202etxt\x00 &amp; </div></html>"


class Tags(HTMLParser):
    """Every tag and every attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        self.attributes += [name for name, _ in attrs]


def results(problems: int, name: str = "a") -> dict[str, Any]:
    values = {"pass@1": [1.0, 0.0] * (problems // 2), "greedy": [1.0, 0.0] * (problems // 2)}
    values |= {"length": [3.0] * problems, "truncated": [0.0] * problems}
    values |= {"reflection": [0.0] * problems}
    result = Result(
        name=name,
        title=NASTY,
        source=NASTY,
        flaws="It has flaws.",
        notes=[NASTY],
        settings={"problems": problems, "samples": 1},
        values=values,
    )
    return results_of([result], {"model": NASTY}, None, 0)


def page(folder: Path, problems: int, **row: Any) -> str:
    store = Store(folder)
    store.write("a", 0, [sample(i, right=i % 2 == 0, **row) for i in range(problems)])
    return write_page(store, results(problems), {"a": 1}).read_text()


def test_what_models_write_stays_text(tmp_path: Path) -> None:
    row = {"response": NASTY, "prompt": NASTY, "answer": NASTY, "given": NASTY, "id": NASTY}
    html = page(tmp_path, 4, **row, finish_reason=NASTY)
    tags = Tags()
    tags.feed(html)
    assert not {"script", "img", "iframe", "link", "object"} & {*tags.seen}
    assert not [name for name in tags.attributes if name.startswith("on") or name == "style"]
    assert html.count("</html>") == 1 and "\u202e" not in html and "\x00" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and r"\u202e" in html


def test_its_policy_forbids_every_script_and_every_request(tmp_path: Path) -> None:
    html = page(tmp_path, 2)
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy and "unsafe" not in policy


def test_it_shows_scores_and_a_bounded_choice_from_hard_to_easy(tmp_path: Path) -> None:
    html = page(tmp_path, 4)
    assert "50.0 [0.0, 100.0]" in html and "hardest first" in html
    assert html.index("0 of 1 right") < html.index("1 of 1 right")
    more = page(tmp_path / "more", 4 * PROBLEMS)
    assert more.count("<details") == PROBLEMS and f"{PROBLEMS} of {4 * PROBLEMS} problems" in more
    assert "0 of 1 right" in more and "1 of 1 right" in more


def test_a_long_response_keeps_its_end(tmp_path: Path) -> None:
    html = page(tmp_path, 2, response="x" * 1_000_000 + "the end")
    assert "the end" in html and len(html) < 200_000
    assert len(middle("x" * 10 * LONGEST)) < LONGEST + 100 and middle("short") == "short"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_browser_loads_it_without_an_error_or_a_request(
    size: tuple[int, int], browser: Browser, tmp_path: Path
) -> None:
    page(tmp_path, 4, response=NASTY, prompt=NASTY)
    path = tmp_path / PAGE
    browser.size(size)
    browser.open(path)
    browser.check(path.as_uri())
    assert not browser.is_clipped() and browser.run("return document.scripts.length") == 0
    browser.click("summary")
    assert any("alert(1)" in text for text in browser.texts(".response"))
