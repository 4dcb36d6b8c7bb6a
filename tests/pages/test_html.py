"""A page in one file: what it allows, and that no text gets out of the place it is put in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from rlkit.pages.html import ASSETS, LONGEST, as_json, asset, document, part, text

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>",
    "{{7*7}} ${alert(1)} <%= 1 %>",
    "\u2028\u2029",
    "\u202egnp.exe\u2066",
    "\ud800",
    '" onload="alert(1)',
    "x" * 1_000_000,
]


class Elements(HTMLParser):
    """The elements of a page, with their attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        self.found.append(("/" + tag, {}, ""))

    def handle_data(self, data):
        if self.found:
            tag, attrs, before = self.found[-1]
            self.found[-1] = (tag, attrs, before + data)

    def of(self, tag):
        return [(attrs, content) for name, attrs, content in self.found if name == tag]


def policy(page: str) -> dict[str, list[str]]:
    (content,) = [
        attrs["content"] for attrs, _ in Elements(page).of("meta") if "http-equiv" in attrs
    ]
    return {part.split()[0]: part.split()[1:] for part in content.split("; ")}


def hashed(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_the_policy_allows_the_pages_own_scripts_and_styles_alone():
    page = document("Run", "<main></main>", {}, scripts=["plot.js"])
    allowed, elements = policy(page), Elements(page)
    scripts = [content for attrs, content in elements.of("script") if "type" not in attrs]
    styles = [content for _, content in elements.of("style")]
    assert len(scripts) == 4 and len(styles) == 2
    assert allowed["default-src"] == ["'none'"]
    assert allowed["script-src"] == ["'strict-dynamic'", *map(hashed, scripts)]
    assert allowed["style-src"] == [*map(hashed, styles)]
    assert "connect-src" not in allowed


def test_a_page_of_a_server_may_ask_that_server():
    assert policy(document("Run", "", {}, connect=True))["connect-src"] == ["'self'"]


def test_a_page_names_no_other_place():
    page = document("Run", "", {})
    assert not [a for _, a, _ in Elements(page).found if "src" in a or "href" in a]
    addresses = re.findall(r"https?://[^\s\"')]*", page)
    assert set(addresses) == {"https://github.com/leeoniya/uPlot"}  # a comment names its origin


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: repr(value[:20]))
def test_data_cannot_end_its_element_and_comes_out_as_it_went_in(hostile):
    page = document("Run", "", {"a": {hostile[:100]: [hostile]}})
    ((attrs, content),) = [e for e in Elements(page).of("script") if e[0].get("id") == "data"]
    assert attrs["type"] == "application/json" and content.isascii()
    assert json.loads(content) == {"a": {hostile[:100]: [hostile]}}
    assert not set("<>&") & set(content)


def test_numbers_that_are_not_finite_become_null():
    assert as_json({"a": [1.5, float("nan"), (float("-inf"),)], "b": {"c": float("inf")}}) == (
        '{"a":[1.5,null,[null]],"b":{"c":null}}'
    )


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: repr(value[:20]))
def test_a_text_and_a_title_stay_text(hostile):
    page = document(hostile, f"<main>{text(hostile)}</main>", {})
    page.encode()
    elements = Elements(page)
    ((_, title),) = elements.of("title")
    ((_, main),) = elements.of("main")
    assert title == main
    assert len(elements.found) == len(Elements(document("Run", "<main></main>", {})).found)
    assert len(main) < LONGEST + 100


def test_a_text_spells_out_what_hides_or_turns_others():
    assert text("a\u202eb\x00\u200b\r") == r"a\u202eb\u0000\u200b\u000d"
    assert text("\u05d0\tb\nc\u200d") == "\u05d0\tb\nc\u200d"  # letters, tabs, lines and joiners


def test_a_long_line_is_cut_and_says_so():
    assert text("abc\n" + "d" * 30, longest=10) == "abc\ndddddddddd ... (30 characters)"
    assert text("d" * 10, longest=10) == "d" * 10


def test_a_part_is_a_script_that_hands_over_its_payload():
    assert part("s-1", {"a": "</script>"}) == ('rlkit.put("s-1",{"a":"\\u003c/script\\u003e"});\n')


def test_the_plots_come_with_their_licence():
    page = document("Run", "", {})
    assert asset("uPlot-LICENSE").strip() in page and "Leon Sorokin" in page


def test_no_asset_writes_html_or_ends_its_element():
    for path in ASSETS.glob("*.*s"):
        content = path.read_text()
        assert "</s" not in content.lower(), path.name
        if not path.name.startswith("uPlot"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", content
            )


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    ],
)
def test_the_plotting_library_is_the_published_one(name, digest):
    assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
