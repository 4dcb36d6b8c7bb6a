"""A headless Chromium for the tests of pages: what a page asks for and what its console says.

A test under tests/pages takes it as the fixture `browser` and is thereby marked as one of
`make test-browser`. Without Chromium or selenium it is skipped, unless RLKIT_BROWSER=required.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # Chromium's own refuses to work for root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
DESKTOP, PHONE = (1280, 900), (390, 844)
"""Sizes in CSS pixels."""
LOCAL = ("data:", "blob:", "about:", "chrome:")
"""What a page may always load: it leaves the browser for nothing."""
PATIENCE = 30.0
"""Seconds after which a page that does not get ready has failed."""


class Browser:
    """One window of a browser that was started for this test, with a profile of its own."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._requests: list[str] = []
        self._errors: list[str] = []

    def open(self, address: str | Path) -> None:
        """Load a page, given as a file or an address, and wait until it is loaded."""
        self.driver.get(address.resolve().as_uri() if isinstance(address, Path) else address)

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns in the page: `run("return document.title")`."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression: str) -> Any:
        """Wait until an expression of JavaScript is true in the page; returns its value."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, 0.05).until(
            lambda _: self.run(f"return {expression}"), f"never true: {expression}"
        )

    def click(self, selector: str) -> None:
        """Click the first element that a CSS selector finds."""
        self.driver.find_element("css selector", selector).click()

    def type(self, selector: str, text: str) -> None:
        """Type a text into the first element that a CSS selector finds."""
        self.driver.find_element("css selector", selector).send_keys(text)

    def texts(self, selector: str) -> list[str]:
        """The visible text of every element that a CSS selector finds, read at one moment."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())"
        )
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def size(self, size: tuple[int, int]) -> None:
        """Show the page at DESKTOP or PHONE size."""
        width, height = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE},
        )

    def scheme(self, name: str) -> None:
        """Prefer the colors of a `light` or a `dark` desktop."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": name}]},
        )

    def is_clipped(self) -> bool:
        """Whether the page is wider than its window."""
        wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.run(wide))

    def screenshot(self, path: Path) -> Path:
        """Write the whole page, as far down as it goes, as a PNG."""
        import base64

        whole = {"captureBeyondViewport": True, "format": "png"}
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def errors(self) -> list[str]:
        """Warnings and errors of the console so far: exceptions, refused and failed loads."""
        self._errors += [
            f"{entry['level']}: {entry['message']}"
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("WARNING", "SEVERE")
        ]
        return self._errors

    def requests(self) -> list[str]:
        """Every address that was asked for so far, refused or not."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requests.append(message["params"]["request"]["url"])
        return self._requests

    def check(self, *allowed: str) -> None:
        """Assert that the console is empty and that all requests begin with an allowed address."""
        assert self.errors() == []
        elsewhere = [url for url in self.requests() if not url.startswith((*allowed, *LOCAL))]
        assert elsewhere == []


def missing() -> str | None:
    """Why there is no browser here; None if there is one."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed (pip install selenium)"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install chromium chromium-driver)"
    return None


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in `folder`; skips or fails the test if there is none."""
    if (reason := missing()) is not None:
        if os.environ.get("RLKIT_BROWSER") == "required":
            pytest.fail(f"no browser: {reason}")
        pytest.skip(reason)
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in (*SWITCHES, f"--user-data-dir={folder}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.get("about:blank")
        for log in ("browser", "performance"):
            driver.get_log(log)  # of the browser's own first page
        found = Browser(driver)
        found.size(DESKTOP)
        yield found
    finally:
        driver.quit()
