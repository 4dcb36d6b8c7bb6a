"""The browser of the tests notices what a page must not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import PHONE, Browser, missing, started

VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'


def page(folder: Path, body: str) -> Path:
    path = folder / "page.html"
    path.write_text(f"<!doctype html>{VIEWPORT}<title>t</title><body>{body}")
    return path


def test_a_quiet_page_passes_and_can_be_used(browser: Browser, tmp_path: Path) -> None:
    path = page(
        tmp_path,
        "<input oninput=\"document.querySelector('p').textContent = this.value\"><p>empty</p>",
    )
    browser.open(path)
    browser.check(path.as_uri())
    browser.type("input", "typed")
    assert browser.texts("p") == ["typed"]
    assert browser.screenshot(tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_request_elsewhere_is_noticed(browser: Browser, tmp_path: Path) -> None:
    path = page(tmp_path, '<img src="http://elsewhere.invalid/pixel.png">')
    browser.open(path)
    assert browser.requests() == [path.as_uri(), "http://elsewhere.invalid/pixel.png"]
    with pytest.raises(AssertionError):
        browser.check(path.as_uri())


def test_an_exception_and_a_refused_script_are_noticed(browser: Browser, tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    browser.open(page(tmp_path, "<script>throw Error('thrown here')</script>"))
    assert ["thrown here" in line for line in browser.errors()] == [True]
    browser.open(page(tmp_path, f"{policy}<script>1</script>"))
    assert ["Content Security Policy" in line for line in browser.errors()] == [False, True]


def test_a_phone_is_narrow_and_a_scheme_is_dark(browser: Browser, tmp_path: Path) -> None:
    browser.open(page(tmp_path, '<div style="width:600px">wide</div>'))
    assert not browser.is_clipped()
    browser.size(PHONE)
    browser.scheme("dark")
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert browser.is_clipped()


def test_without_a_browser_a_test_is_skipped_or_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "is not installed" in (missing() or "")
    monkeypatch.delenv("RLKIT_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception), started(tmp_path):
        pass
    monkeypatch.setenv("RLKIT_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception), started(tmp_path):
        pass
