"""report.html in a browser: it loads nothing else, says nothing wrong, and its switches work."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rlkit.pages.html import part
from rlkit.pages.report import write_report
from tests.browser import PHONE, Browser
from tests.run_folders import PART, evaluation, training, write_run

NARROW = (360, PHONE[1])
STEPS = 60


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """60 steps with a rebirth, of which the last clip too much, evaluated every 20."""
    rows = [evaluation(0, 0.1)]
    for step in range(1, STEPS + 1):
        more = {"policy__clip_fraction": 0.5 if step > 40 else 0.1}
        rows.append(training(step, mine__metric=math.sin(step), **more))
        rows += [evaluation(step, step / 100)] if step % 20 == 0 else []
    return write_report(write_run(tmp_path / "remix-1", rows, overrides="algorithm=remix\n"))


def column(browser: Browser, name: str, number: int = 0) -> list[float]:
    """A column of what a plot draws: its x, or the number-th line with smoothed and raw ones."""
    found: list[float] = browser.run(
        "return document.getElementById(`plot-${arguments[0]}`).chart.data[arguments[1]]",
        *(name, number),
    )
    return found


def value(browser: Browser, name: str) -> str:
    """The figure beside the first line of a plot."""
    return browser.texts(f"#plot-{name} .value")[0]


def slide(browser: Browser, to: float) -> None:
    browser.run(
        "const slider = document.getElementById('smooth'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        to,
    )


def test_the_page_is_whole_and_asks_for_nothing_else(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.texts("h1") == ["remix-1"]
    assert browser.texts("main h2") == [
        *("Does it learn?", "At what cost?", "How off-policy is it?", "Is it stable?"),
        *("Where did the time go?", "Other metrics"),
    ]
    titles = browser.texts("main h3")
    assert len(titles) > 15 and "Clipped share by age" in titles
    assert browser.run("return document.querySelectorAll('figure.plot canvas').length") == len(
        titles
    )
    assert "mine/metric" not in titles
    browser.click("#others summary")
    browser.wait("document.querySelectorAll('#others canvas').length >= 3")
    assert "mine/metric" in browser.texts("#others h3")
    browser.check(report.as_uri())


def test_the_axis_switch_moves_every_plot_but_those_with_an_axis_of_their_own(
    browser: Browser, report: Path
) -> None:
    browser.open(report)
    assert browser.texts("#axis option") == ["steps", "responses", "tokens", "seconds of training"]
    assert column(browser, "reward") == [*range(1, STEPS + 1)]
    for name, of_a_step in (("rollouts/total", 32), ("rollouts/tokens", 320), ("time/total", 1.5)):
        browser.click(f"#axis option[value='{name}']")
        assert column(browser, "reward") == [of_a_step * step for step in range(1, STEPS + 1)]
        assert column(browser, "by-responses") == [0, 640, 1280, 1920]
        assert column(browser, "by-seconds") == [0, 30, 60, 90]
    browser.check(report.as_uri())


def test_the_smoothing_switch_draws_the_moving_average_over_the_values(
    browser: Browser, report: Path
) -> None:
    """The mean with weights 1/2^k, over their sum: after 1, 2, 3 of the values v that is v1,
    (v1/4 + v2/2) / (3/4) and so on; the values themselves stay behind it."""
    browser.open(report)
    values = [step / 10 for step in range(1, STEPS + 1)]
    slide(browser, 0)
    assert column(browser, "reward", 1) == pytest.approx(values)
    assert value(browser, "reward") == "6"
    slide(browser, 0.5)
    assert column(browser, "reward", 1) == pytest.approx(values)
    smoothed = column(browser, "reward", 2)
    assert smoothed[:2] == pytest.approx([0.1, (0.1 / 4 + 0.2 / 2) / 0.75])
    assert smoothed[-1] == pytest.approx(5.9)  # 1 step of 0.1 behind a line, on the long run
    assert value(browser, "reward") == "5.9"
    assert column(browser, "score", 3) == [0.1, 0.2, 0.4, 0.6]  # evaluations are never smoothed
    browser.check(report.as_uri())


def test_the_cursor_is_at_the_same_step_in_all_plots(browser: Browser, report: Path) -> None:
    from selenium.webdriver import ActionChains

    browser.open(report)
    slide(browser, 0)
    over = browser.driver.find_element("css selector", "#plot-reward .u-over")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", over)
    ActionChains(browser.driver).move_to_element(over).perform()
    browser.wait("document.getElementById('plot-length').chart.cursor.idx > 0")
    step = round(10 * float(value(browser, "reward")))
    assert 20 < step < 40
    places = browser.run(
        "return ['reward', 'clip', 'seconds'].map("
        "(name) => document.getElementById(`plot-${name}`).chart.cursor.idx)"
    )
    assert places == [step - 1] * 3
    browser.check(report.as_uri())


def test_a_line_is_hidden_by_its_key(browser: Browser, report: Path) -> None:
    browser.open(report)
    slide(browser, 0)

    def columns() -> int:
        return int(browser.run("return document.getElementById('plot-kl').chart.data.length"))

    assert columns() == 3
    browser.click("#plot-kl .legend button")
    assert columns() == 2 and column(browser, "kl", 1)[0] == pytest.approx(0.02)
    browser.click("#plot-kl .legend button")
    assert columns() == 3
    browser.check(report.as_uri())


def test_a_warning_leads_to_its_plot(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert any("In 20 of 60 steps, first in step 41" in li for li in browser.texts(".alarms li"))
    browser.click(".alarms a")
    assert browser.run("return location.hash") == "#plot-clip"
    top = "document.getElementById('plot-clip').getBoundingClientRect().top"
    assert 0 < browser.wait(f"{top} < innerHeight && {top}") < 900


def test_the_colors_follow_the_desktop_until_the_reader_chooses(
    browser: Browser, report: Path
) -> None:
    browser.open(report)

    def brightness() -> float:
        return float(
            browser.run(
                "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
                ".slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765"
            )
        )

    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        assert (brightness() > 0.5) is (scheme == "light")
    seen = []
    for _ in range(3):
        browser.click(".theme")
        seen.append((browser.texts(".theme")[0].split()[-1], brightness() > 0.5))
    assert seen == [("light", True), ("dark", False), ("auto", False)]
    browser.check(report.as_uri())


@pytest.mark.parametrize("size", [NARROW, PHONE, (900, 700)])
def test_nothing_is_clipped_in_a_narrow_window(
    browser: Browser, report: Path, size: tuple[int, int]
) -> None:
    browser.size(size)
    browser.open(report)
    assert not browser.is_clipped()
    beyond = browser.run(
        "return [...document.querySelectorAll('header *, .switches *, main *')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=hacked=1>{{7*7}}\u202e"


def test_hostile_texts_are_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    rows = [training(1), {**training(2), f"reward/{HOSTILE}/mean": 1.0, HOSTILE: 1.0}]
    run_dir = write_run(
        tmp_path / "r",
        [{**row, "x" * 1_000_000: 1.0} for row in rows],
        overrides=f"algorithm={HOSTILE}\n",
        components_json=json.dumps({"loss": {"name": HOSTILE, **PART}}),
        config_yaml=json.dumps({"model": {"name": HOSTILE}, "long": "<b>" * 400_000}),
    )
    path = write_report(run_dir)
    browser.open(path)
    browser.click("#others summary")
    browser.wait("document.querySelectorAll('#others canvas').length >= 3")
    for fold in range(1, 5):
        browser.click(f"footer details:nth-of-type({fold}) summary")
    assert browser.run("return window.hacked ?? null") is None
    assert not browser.run("return document.querySelectorAll('img').length")
    spelled = HOSTILE.replace("\u202e", "\\u202e")
    assert spelled in browser.texts("#others h3")
    assert any(spelled in key for key in browser.texts("#plot-reward .key"))
    assert not browser.is_clipped()
    browser.check(path.as_uri())


@pytest.mark.parametrize(
    "rows",
    [
        [training(1)],
        [evaluation(0, 0.5)],
        [{"step": 1}],
        [training(1, policy__loss=math.nan), training(2, policy__loss=math.inf)],
        [training(step, policy__loss=math.nan if step == 2 else 1.0) for step in (1, 2, 3)],
    ],
    ids=["one step", "one evaluation", "nothing", "nothing finite", "a gap"],
)
def test_a_run_with_next_to_nothing_has_a_page_without_errors(
    browser: Browser, tmp_path: Path, rows: list[dict[str, float]]
) -> None:
    path = write_report(write_run(tmp_path / "r", rows))
    browser.open(path)
    browser.check(path.as_uri())
    if len(rows) == 3:
        assert column(browser, "loss", 1) == [1, None, 1]


ASK = (
    "const done = arguments[arguments.length - 1];"
    "rlkit.load(arguments[0]).then(done, (error) => done(error.message))"
)


def test_a_part_beside_the_page_is_loaded_when_it_is_asked_for(
    browser: Browser, report: Path
) -> None:
    folder = report.parent / "report"
    folder.mkdir()
    (folder / "samples-1.js").write_text(part("samples-1", {"text": "</script>"}))
    (folder / "other.js").write_text(part("samples-2", {}))
    browser.open(report)

    def ask(name: str) -> object:
        return browser.driver.execute_async_script(ASK, name)

    assert ask("samples-1") == {"text": "</script>"}
    browser.check(report.parent.as_uri())
    assert "report/other.js does not hold" in str(ask("other"))
    assert "report/missing.js cannot be read" in str(ask("missing"))
    assert "not the name of a part" in str(ask("../metrics"))
    (folder / "missing.js").write_text(part("missing", {"now": 1}))
    assert ask("missing") == {"now": 1}


def test_the_policy_refuses_scripts_that_are_not_the_pages(browser: Browser, report: Path) -> None:
    text = report.read_text()
    report.write_text(text.replace("<main>", "<main><script>window.hacked = 1</script>"))
    browser.open(report)
    assert browser.run("return window.hacked ?? null") is None
    assert any("Content Security Policy" in error for error in browser.errors())
