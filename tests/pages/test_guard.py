"""Who may ask the live server what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlkit.pages.guard import HEADERS, NOTHING, Guard

TOKEN = "the-token_1"
OWN = b"127.0.0.1:4000"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path it was asked for."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Own", b"1")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def receive() -> Any:
    raise AssertionError("nothing of a request is read")


def ask(
    path: str, *, raw: bytes | None = None, method: str = "GET", hosts: tuple[bytes, ...] = (OWN,)
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of the answer; `raw` is the path as it was sent."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw is None else raw,
        "headers": [(b"host", host) for host in hosts],
    }
    asyncio.run(Guard(echo, TOKEN)(scope, receive, send))
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, body["body"].decode()


def test_behind_the_token_is_the_application_which_does_not_see_it():
    assert ask(f"/{TOKEN}/")[::2] == (200, "/")
    assert ask(f"/{TOKEN}/3/report/samples-12.js")[::2] == (200, "/3/report/samples-12.js")


def test_the_token_alone_leads_to_the_folder_of_its_name():
    status, headers, _ = ask(f"/{TOKEN}")
    assert (status, headers["location"]) == (307, f"{TOKEN}/")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/0/report.html", "/the-token_/", "/the-token_12/", "/THE-TOKEN_1/", "//", "/é/"],
)
def test_without_the_token_nothing_is_there(path):
    assert ask(path)[::2] == (404, "not found\n")


def test_a_wrong_method_is_told_only_to_who_has_the_token():
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        status, headers, _ = ask(f"/{TOKEN}/", method=method)
        assert (status, headers["allow"]) == (405, "GET")
        assert ask("/", method=method)[0] == 404


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/../etc/passwd", None),
        ("/0/../../etc/passwd", None),
        ("/./0/report.html", None),
        ("/0/report/../../metrics.jsonl", b"/0/report/%2e%2e%2f%2e%2e%2fmetrics.jsonl"),
        ("/0/report.html", b"/0/report%2ehtml"),
        ("/0/report/%2e%2e/x.js", b"/0/report/%252e%252e/x.js"),
        ("/0/report/..\\..\\x.js", None),
        ("/0/report/a\0.js", b"/0/report/a%00.js"),
        ("//etc/passwd", None),
        ("/0/report/ü.js", None),
        ("/0/report/a;b.js", None),
    ],
)
def test_an_address_that_is_written_in_no_plain_way_is_not_there(path, raw):
    prefix = f"/{TOKEN}"
    sent = None if raw is None else prefix.encode() + raw
    assert ask(prefix + path, raw=sent)[0] == 404


@pytest.mark.parametrize("host", [b"127.0.0.1:4000", b"localhost:1", b"localhost:65535"])
def test_this_machine_may_ask_by_either_name(host):
    assert ask(f"/{TOKEN}/", hosts=(host,))[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        (b"elsewhere.example:4000",),
        (b"127.0.0.1.elsewhere.example:4000",),
        (b"127.0.0.1",),
        (b"0.0.0.0:4000",),
        (b"127.0.0.1:4000 elsewhere",),
        (b"LOCALHOST:4000\n",),
        (),
        (OWN, b"elsewhere.example"),
    ],
)
def test_a_name_of_elsewhere_is_refused_whatever_it_resolves_to(hosts):
    status, _, body = ask(f"/{TOKEN}/", hosts=hosts)
    assert status == 403 and "127.0.0.1" in body


@pytest.mark.parametrize("path", ["/", f"/{TOKEN}", f"/{TOKEN}/", f"/{TOKEN}/%"])
def test_every_answer_has_the_headers(path):
    _, headers, _ = ask(path)
    assert headers | HEADERS == headers
    assert headers["content-security-policy"] == NOTHING


def test_the_applications_own_policy_and_headers_stay():
    async def own(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Content-Security-Policy", b"default-src 'self'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": f"/{TOKEN}/", "headers": [(b"host", OWN)]}
    asyncio.run(Guard(own, TOKEN)(scope, receive, send))
    policies = [v for name, v in sent[0]["headers"] if name == b"content-security-policy"]
    assert policies == [b"default-src 'self'"]
    assert ask(f"/{TOKEN}/")[1]["x-own"] == "1"
