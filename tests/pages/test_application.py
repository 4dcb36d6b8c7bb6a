"""The live server over HTTP: what it answers, and that it goes on while a run writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlkit.pages.samples import sample_script
from tests.browser import Browser
from tests.pages.sample_runs import response, write_step
from tests.pages.server import TOKEN, Client, served
from tests.pages.written import write_pair, write_run

BACKSPACE = "\ue003"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "r", {0: 0.1, 4: 0.5}, steps=9)


@pytest.fixture
def client(run: Path) -> Iterator[Client]:
    with served([run], lambda folder, name: f"// {name}" if name == "samples" else None) as found:
        yield found


def test_one_run_is_shown_at_once_and_several_are_compared(client, tmp_path):
    answer = client.get("")
    assert (answer.status, answer.headers["location"]) == (307, "0/report.html")
    with served(write_pair(tmp_path, [0.5], [0.7])) as several:
        assert "Runs compared" in several.get("").text
        assert json.loads(several.get("state.json").text)["words"] == "2 runs, step 4"


def test_a_run_has_its_page_its_parts_and_its_state(client):
    page, part, state = map(client.get, ("0/report.html", "0/report/samples.js", "0/state.json"))
    assert page.status == part.status == state.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert part.headers["content-type"] == "text/javascript; charset=utf-8"
    assert part.text == "// samples"
    assert json.loads(state.text)["words"] == "step 4"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        *("1/report.html", "-1/report.html", "0", "0/", "0/report", "0/report/other.js"),
        *("0/metrics.jsonl", "0/config.yaml", "0/report/samples", "report.html"),
    ],
)
def test_what_is_no_page_is_not_there(client, path):
    assert client.get(path).status == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "0/../../../../etc/passwd",
        "0/report/../../metrics.jsonl",
        "0/report/%2e%2e%2f%2e%2e%2fmetrics.jsonl",
        "0/report/..%2f..%2f..%2fetc%2fpasswd.js",
        "0/report/%252e%252e%252fmetrics.js",
        "0/report/..%5c..%5cmetrics.js",
        "0/report/samples%00.js",
        "0/report/%c0%ae%c0%ae/metrics.js",
        "0//etc/passwd",
        "%2fetc%2fpasswd",
    ],
)
def test_no_address_leads_out_of_the_pages(client, path):
    answer = client.get(path)
    assert answer.status in (400, 404)
    assert "root:" not in answer.text and "eval/pass@1" not in answer.text


def test_without_the_token_or_with_another_nothing_is_there(client):
    for path in ("/", "/0/report.html", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/", "/favicon.ico"):
        assert client.send(path).status == 404


def test_another_host_and_another_method_are_refused(client):
    assert client.get("0/report.html", Host="elsewhere.example").status == 403
    assert client.get("0/report.html", Host=f"elsewhere.example:{client.port}").status == 403
    assert client.get("0/report.html", Host=f"localhost:{client.port}").status == 200
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        assert client.get("0/report.html", method).status == 405


def test_a_pages_policy_is_in_its_headers_too_and_nobody_may_frame_it(client):
    page = client.get("0/report.html")
    policy = page.headers["content-security-policy"]
    inside, _, outside = policy.rpartition("; ")
    assert f'content="{inside}"' in page.text and outside == "frame-ancestors 'none'"
    assert "connect-src 'self'" in inside and "default-src 'none'" in inside
    for path in ("0/state.json", "0/report/samples.js", "nothing"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_what_cannot_be_read_is_told_in_words_and_links_are_refused(client, run, tmp_path):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("no JSON\n")
    answer = client.get("0/report.html")
    assert answer.status == 503 and "not JSON" in answer.text
    assert answer.headers["refresh"] == "3"
    (tmp_path / "other").write_text(text)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(tmp_path / "other")
    answer = client.get("0/report.html")
    assert answer.status == 403 and "link" in answer.text
    (run / "metrics.jsonl").unlink()
    assert client.get("0/report.html").status == 503


@pytest.mark.slow
def test_a_thousand_requests_while_a_run_writes(client, run):
    """A writer appends lines in two halves; every answer is whole and none is older than before."""
    stop = threading.Event()

    def write() -> None:
        step = 5
        with (run / "metrics.jsonl").open("a", buffering=1) as file:
            while not stop.wait(0.002):
                line = json.dumps({"step": step, "reward/mean": 0.5, "time/step": 1.0})
                file.write(line[:20])
                file.flush()
                file.write(line[20:] + "\n")
                step += 1

    writer = threading.Thread(target=write)
    writer.start()
    paths = ["0/state.json"] * 8 + ["0/report.html", "0/report/samples.js"]
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.get, paths * 100))
    finally:
        stop.set()
        writer.join()
    assert {answer.status for answer in answers} == {200}
    pages = [answer.text for answer in answers if "<!doctype html>" in answer.text]
    lengths = [len(json.loads(data_of(page))["axes"]["step"]) for page in pages]
    assert len(lengths) == 100 and lengths[-1] > lengths[0] >= 5


def data_of(page: str) -> str:
    return page.split('id="data">')[1].split("</script>")[0]


def test_a_page_in_a_browser_takes_over_what_the_run_logs(
    browser: Browser, client: Client, run: Path
) -> None:
    """Scroll position and switches stay; the head and the plots are those of the new data."""
    browser.open(client.address)
    browser.wait("document.querySelectorAll('canvas').length > 2")
    assert "4 of 9 steps" in browser.texts("header")[0]
    browser.type("#axis", "responses")
    browser.run("window.same = true; scrollTo(0, 300)")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rollouts/total": 50, "reward/mean": 0.9, "time/step": 2.0, ')
        file.write('"completions/mean_length": 12.0}\n')
    browser.wait("document.querySelector('header').innerText.includes('5 of 9 steps')")
    browser.wait("document.querySelector('.live').innerText.includes('step 5')")
    assert browser.run("return [rlkit.state.x, window.same, scrollY]") == [
        "rollouts/total",
        True,
        300,
    ]
    assert "0.9" in browser.run(
        "return [...document.querySelectorAll('figure')].find((f) => f.querySelector('h3')"
        ".innerText === 'Reward').querySelector('.value').innerText"
    )
    browser.check(client.address)


def test_new_plots_come_by_themselves_unless_the_reader_would_lose_a_choice(
    browser: Browser, client: Client, run: Path
) -> None:
    def log(line: str) -> None:
        with (run / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")

    browser.open(client.address)
    titles = "[...document.querySelectorAll('h3')].map((h) => h.innerText).join()"
    browser.wait(f"{titles}.includes('Reward')")
    log('{"step": 5, "policy/entropy": 0.5}')
    browser.wait(f"{titles}.includes('Entropy')")
    browser.type("#axis", "responses")
    log('{"step": 6, "off_policy/ess": 0.5}')
    browser.wait("document.querySelector('.live button')")
    assert "Effective sample size" not in browser.run(f"return {titles}")
    assert browser.run("return rlkit.state.x") == "rollouts/total"
    browser.click(".live button")
    browser.wait(f"{titles}.includes('Effective sample size')")
    browser.check(client.address)


def test_new_steps_join_the_samples_and_what_is_looked_at_stays(
    browser: Browser, run: Path
) -> None:
    """The filter, the step and the unfolded responses; the new step is then asked for."""
    for step in (1, 2):
        write_step(run, step, [response(step), response(step, response="Fünf", reward=0.0)])
    with served([run], sample_script) as client:
        browser.open(client.address)
        browser.wait("document.querySelectorAll('.sample').length === 2")
        browser.type("#samples input[type=search]", "fünf")
        browser.wait("document.querySelectorAll('.sample').length === 1")
        write_step(run, 5, [response(5, response="Sechs")])
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "reward/mean": 0.9}\n')
        options = "[...document.querySelectorAll('.stepper option')].map((o) => o.value).join()"
        browser.wait(f"{options} === '1,2,5'")
        assert len(browser.texts(".sample")) == 1 and "Fünf" in browser.texts(".sample")[0]
        assert browser.run("return document.querySelector('.stepper select').value") == "2"
        browser.type("#samples input[type=search]", 4 * BACKSPACE)
        browser.click(".stepper button:last-child")
        browser.wait("document.querySelector('.sample')?.innerText.includes('Sechs')")
        browser.check(client.address)


def test_the_comparison_in_a_browser_grows_with_its_runs(browser: Browser, tmp_path: Path) -> None:
    first, second = write_pair(tmp_path, [0.5], [0.7])
    with served([first, second]) as client:
        browser.open(client.address)
        browser.wait("document.querySelectorAll('canvas').length > 2")
        assert "0.700" in browser.texts("#table")[0]
        with (second / "metrics.jsonl").open("a") as file:
            file.write('{"step": 6, "rollouts/total": 60, "eval/pass@1": 0.9}\n')
        browser.wait("document.querySelector('#table').innerText.includes('0.900')")
        browser.click("footer a")
        browser.wait("location.pathname.endsWith('0/report.html')")
        browser.wait("document.querySelectorAll('canvas').length > 2")
        browser.check(client.address)
