"""Requests to an endpoint: tries, limits, what is refused. The key is shown nowhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.judge.endpoint import Endpoint, Fault, Model, is_local
from rlkit.rewards.judge.settings import JudgeConfig
from tests.rewards.judge.stub import Stub, said
from tests.rewards.processes import wait_until
from tests.rollout.servers import free_port

KEY = "sk-very-secret"
BODY = {"model": "judge", "messages": [{"role": "user", "content": "Response:\nabc"}]}


def endpoint(stub: Stub, **fields: Any) -> Endpoint:
    settings = {"address": stub.address, "backoff": 0.0, **fields}
    return Endpoint("judge", JudgeConfig.model_validate(settings))


def ask(found: Endpoint) -> str | Fault:
    async def one() -> str | Fault:
        async with found.client() as client:
            return await found.ask(client, BODY)

    return asyncio.run(one())


def model(found: Endpoint) -> Model:
    async def one() -> Model:
        async with found.client() as client:
            return await found.model(client)

    return asyncio.run(one())


def answers(found: Endpoint, asked: dict[str, Any]) -> dict[str, str | Fault]:
    async def all_of_them() -> dict[str, str | Fault]:
        async with found.client() as client:
            return await found.answers(client, asked, dict)

    return asyncio.run(all_of_them())


def test_a_request_and_its_answer(stub: Stub) -> None:
    assert ask(endpoint(stub)) == "It is short.\nScore: 3"
    assert stub.asked == [BODY] and stub.keys == [None]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_a_status_that_may_pass_is_tried_again(status: int, stub: Stub) -> None:
    stub.script = [(status, "busy"), (status, "busy"), None]
    assert ask(endpoint(stub, tries=3)) == "It is short.\nScore: 3"
    stub.script = [(status, "busy\nnow"), (status, "busy\nnow"), None]
    fault = ask(endpoint(stub, tries=2))
    assert fault == Fault("errors", f"answered with status {status}: busy now, in 2 tries")


def test_pauses_double_and_a_server_may_ask_for_longer_ones(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("rlkit.rewards.judge.endpoint.asyncio.sleep", sleep)
    stub.script = [
        (503, "busy"),
        *((429, "busy", {"Retry-After": asked}) for asked in ("7", "x", "9999")),
        None,
    ]
    assert isinstance(ask(endpoint(stub, backoff=0.5, timeout=60)), str)
    assert slept == [0.5, 7.0, 2.0, 60.0]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((400, {"error": "too long"}), 'answered with status 400: {"error": "too long"}'),
        ((302, "elsewhere", {"Location": "http://127.0.0.1:9/"}), "answered with status 302"),
        ((200, "no JSON"), "gave a reply that is no chat completion: no JSON"),
        ((200, {"choices": []}), "gave a reply that is no chat completion"),
        ((200, ["a"]), "gave a reply that is no chat completion"),
    ],
)
def test_what_no_other_try_would_change_fails_at_once(reply: Any, why: str, stub: Stub) -> None:
    stub.script = [reply]
    fault = ask(endpoint(stub))
    assert isinstance(fault, Fault) and fault.kind == "errors" and fault.why.startswith(why)
    assert len(stub.asked) == 1


def test_a_model_that_only_thought_said_nothing(stub: Stub) -> None:
    stub.script = [(200, said(None))]
    assert ask(endpoint(stub)) == ""


def test_an_answer_that_takes_too_long_is_given_up(stub: Stub) -> None:
    over = threading.Event()
    stub.until = lambda: over.wait(60)
    fault = ask(endpoint(stub, timeout=0.1, tries=2))
    over.set()
    assert fault == Fault("timeouts", "did not answer within 0.1 s, in 2 tries")
    wait_until(lambda: len(stub.asked) == 2)


def test_a_server_that_went_away_is_a_fault_and_one_that_is_not_there_an_error(stub: Stub) -> None:
    gone = endpoint(stub, address=f"http://127.0.0.1:{free_port()}/v1", tries=2)
    fault = ask(gone)
    assert isinstance(fault, Fault) and fault.kind == "errors"
    assert fault.why.startswith("cannot be reached (ConnectError")
    with pytest.raises(UserError, match=r"cannot reach http.*ConnectError.*reward.judge.address"):
        model(gone)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "reward.judge.key_variable"), (403, "key_variable"), (404, "reward.judge.model and")],
)
def test_what_every_request_will_meet_is_an_error(status: int, advice: str, stub: Stub) -> None:
    stub.script = [(status, "no")]
    with pytest.raises(UserError, match=rf"status {status}: no; check .*{advice}"):
        ask(endpoint(stub, failed="none"))


def test_the_only_model_is_found_and_others_must_be_named(stub: Stub) -> None:
    assert model(endpoint(stub)) == Model("judge", "org/judge")
    assert model(endpoint(stub, model="judge")) == Model("judge", "org/judge")
    assert model(endpoint(stub, model="other")) == Model("other", None)
    stub.models = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    assert model(endpoint(stub, model="b")) == Model("b", None)
    with pytest.raises(UserError, match=r"serves a, b; choose one: reward.judge.model=<name>"):
        model(endpoint(stub))
    stub.models = (404, "none here")
    assert model(endpoint(stub, model="b")) == Model("b", None)
    with pytest.raises(UserError, match=r"lists no model \(status 404\).*usually ends in /v1"):
        model(endpoint(stub))


def test_requests_run_at_the_same_time_up_to_a_number(stub: Stub) -> None:
    """Three can only meet if so many run at once."""
    meeting = threading.Barrier(3)
    stub.until = lambda: meeting.wait(60)
    found = answers(endpoint(stub, concurrency=3), {str(i): BODY for i in range(9)})
    assert list(found) != [] and set(found) == {str(i) for i in range(9)}
    assert stub.most == 3


@pytest.mark.parametrize("failed", ["error", "none"])
def test_a_request_that_fails_stops_the_run_or_is_a_fault(failed: str, stub: Stub) -> None:
    stub.script = [None, (400, "too long"), None]
    found = endpoint(stub, failed=failed, concurrency=1)
    asked = dict.fromkeys("abc", BODY)
    if failed == "none":
        good = "It is short.\nScore: 3"
        assert answers(found, asked) == {
            "a": good,
            "b": Fault("errors", "answered with status 400: too long"),
            "c": good,
        }
        return
    with pytest.raises(UserError, match=r"status 400: too long; continue with resume=auto, or .*"):
        answers(found, asked)


def test_answers_that_come_together_are_kept_together(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time costs a transaction, which waits for the disk."""
    found, times = endpoint(stub, concurrency=100), []

    async def ask_all() -> dict[str, str | Fault]:
        together = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, together.set)

        async def answer(client: Any, body: Any) -> str:
            await together.wait()
            return "3"

        monkeypatch.setattr(found, "ask", answer)

        def keep(new: Any) -> Any:
            times.append(len(new))
            return new

        async with found.client() as client:
            return await found.answers(client, {str(i): BODY for i in range(50)}, keep)

    assert asyncio.run(ask_all()) == {str(i): "3" for i in range(50)}
    assert sum(times) == 50 and len(times) < 5


def test_what_arrived_before_an_error_is_kept(stub: Stub) -> None:
    kept: dict[str, str] = {}
    stub.script = [None, (401, "no")]

    def keep(found: Any) -> Any:
        kept.update(found)
        return found

    async def run() -> None:
        found = endpoint(stub, concurrency=1)
        async with found.client() as client:
            await found.answers(client, {"a": BODY, "b": BODY, "c": BODY}, keep)

    with pytest.raises(UserError, match="status 401"):
        asyncio.run(run())
    assert kept == {"a": "It is short.\nScore: 3"}


def test_the_key_is_sent_and_shown_nowhere(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    found = endpoint(stub, key_variable="JUDGE_KEY", tries=1)
    stub.script = [None, (401, f"wrong key {KEY}"), (500, f"key {KEY} failed")]
    ask(found)
    assert stub.keys == [f"Bearer {KEY}"]
    with pytest.raises(UserError, match=r"wrong key \*\*\*; check the key in JUDGE_KEY") as told:
        ask(found)
    shown = [str(told.value), str(ask(found)), found.words(OSError(f"bad {KEY}")), caplog.text]
    shown.append(str(found.config))
    assert not any(KEY in text for text in shown)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "no such"), ("  ", "no such"), ("sk-ü", "holds"), ("a\nb", "holds")]
)
def test_a_key_that_is_not_there_is_an_error(
    value: str | None, said: str, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match=said):
        endpoint(stub, key_variable="JUDGE_KEY")


def test_no_proxy_stands_before_this_machine(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert isinstance(ask(endpoint(stub)), str)
    local = ("http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:1")
    assert all(map(is_local, local))
    assert not is_local("http://10.0.0.1/v1") and not is_local("https://judge.example/v1")
