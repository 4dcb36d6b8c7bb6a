"""An OpenAI-compatible endpoint: many requests at once, each with tries and a time limit."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from rlkit.errors import UserError
from rlkit.rewards.judge.settings import JudgeConfig

Body = Mapping[str, Any]
OK = 200
AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that another try may change."""
REFUSED = (401, 403, 404)
"""Statuses that say that every request will fail: the key, the address or the model is wrong."""
CONNECT_SECONDS = 10.0
"""How long a connection may take; answers have the setting `timeout`."""
SHOWN = 200
"""Characters of a server's reply that a message quotes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that failed in all its tries."""

    kind: str
    """"timeouts" or "errors": what it is counted as."""
    why: str


@dataclass(frozen=True, slots=True)
class Model:
    """The judging model."""

    name: str
    root: str | None
    """What the endpoint says it is a name for."""


class Endpoint:
    """The calls made to an endpoint, for a reward that is called `name`."""

    def __init__(self, name: str, config: JudgeConfig) -> None:
        self.name, self.config = name, config
        self.key = self._read_key()

    def _read_key(self) -> str | None:
        """The key. Raises UserError if its variable is empty."""
        variable = self.config.key_variable
        key = None if variable is None else os.environ.get(variable, "").strip()
        if key == "":
            raise UserError(
                f"reward.{self.name}.key_variable={variable}, but there is no such environment "
                "variable: export it with the key, or leave it at null"
            )
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UserError(f"the key in {variable} holds characters that a request cannot carry")
        return key

    def client(self) -> httpx.AsyncClient:
        """Connections for one event loop. An address of this machine is never behind a proxy."""
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=self.config.concurrency),
            trust_env=not is_local(self.config.address),
        )

    async def model(self, client: httpx.AsyncClient) -> Model:
        """Reach the endpoint, once, and ask which models it serves.

        Raises UserError if it cannot be reached, or if `model` is to be the only one and is not.
        """
        c = self.config
        try:
            async with asyncio.timeout(c.timeout):
                reply = await client.get(f"{c.address}/models")
        except (httpx.HTTPError, TimeoutError) as error:
            raise UserError(
                f"reward '{self.name}' cannot reach {c.address} ({self.words(error)}): start the "
                f"server, or correct reward.{self.name}.address"
            ) from None
        if reply.status_code in (401, 403):
            raise self.refused(reply)
        listed = models_of(reply)
        if c.model is not None:
            return next((m for m in listed if m.name == c.model), Model(c.model, None))
        if len(listed) != 1:
            names = ", ".join(model.name for model in listed)
            said = f"serves {names}" if listed else f"lists no model (status {reply.status_code})"
            raise UserError(
                f"reward '{self.name}': {c.address} {said}; choose one: "
                f"reward.{self.name}.model=<name>. An address usually ends in /v1"
            )
        return listed[0]

    async def answers(
        self,
        client: httpx.AsyncClient,
        asked: Mapping[str, Body],
        keep: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> dict[str, str | Fault]:
        """The answer to each request, or why there is none; `keep` gets answers as they come.

        Raises UserError for what every request will meet, and, with failed=error, for the first
        that failed; the others in progress are then given up.
        """
        gate = asyncio.Semaphore(self.config.concurrency)

        async def one(key: str) -> tuple[str, str | Fault]:
            async with gate:
                return key, await self.ask(client, asked[key])

        out: dict[str, str | Fault] = {}
        ended: asyncio.Queue[asyncio.Task[tuple[str, str | Fault]]] = asyncio.Queue()
        tasks = [asyncio.create_task(one(key)) for key in asked]
        for task in tasks:
            task.add_done_callback(ended.put_nowait)
        left = len(tasks)
        try:
            while left:
                done = [await ended.get(), *(ended.get_nowait() for _ in range(ended.qsize()))]
                left -= len(done)
                found = dict(task.result() for task in done if task.exception() is None)
                kept = keep({key: v for key, v in found.items() if isinstance(v, str)})
                out |= {**found, **kept}
                self._check(done, found)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return out

    def _check(self, done: Sequence[asyncio.Task[Any]], found: Mapping[str, str | Fault]) -> None:
        for task in done:
            task.result()
        faults = [each for each in found.values() if isinstance(each, Fault)]
        if faults and self.config.failed == "error":
            raise UserError(
                f"reward '{self.name}': {self.config.address} {faults[0].why}; continue with "
                f"resume=auto, or leave such responses out: reward.{self.name}.failed=none"
            )

    async def ask(self, client: httpx.AsyncClient, body: Body) -> str | Fault:
        """One answer. Raises UserError for what every request will meet."""
        c, fault, wait = self.config, Fault("errors", ""), 0.0
        for attempt in range(c.tries):
            if attempt:
                await asyncio.sleep(max(wait, c.backoff * 2 ** (attempt - 1)))
            wait = 0.0
            try:
                async with asyncio.timeout(c.timeout):
                    reply = await client.post(f"{c.address}/chat/completions", json=body)
            except TimeoutError:
                fault = Fault("timeouts", f"did not answer within {c.timeout:g} s")
                continue
            except httpx.HTTPError as error:
                fault = Fault("errors", f"cannot be reached ({self.words(error)})")
                continue
            if reply.status_code in REFUSED:
                raise self.refused(reply)
            if reply.status_code in AGAIN or reply.status_code >= 500:
                fault = Fault("errors", self.quoted(reply))
                wait = min(retry_after(reply), c.timeout)
                continue
            return self.content(reply)
        tries = f"in {c.tries} tries" if c.tries > 1 else "in one try"
        return Fault(fault.kind, f"{fault.why}, {tries}")

    def content(self, reply: httpx.Response) -> str | Fault:
        """The text of a reply, which is empty if the model only thought."""
        if reply.status_code != OK:
            return Fault("errors", self.quoted(reply))
        try:
            text = reply.json()["choices"][0]["message"]["content"] or ""
        except (ValueError, LookupError, TypeError):
            return Fault("errors", f"gave a reply that is no chat completion: {self.start(reply)}")
        return str(text).encode("utf-8", "replace").decode()

    def refused(self, reply: httpx.Response) -> UserError:
        """The error for a key, an address or a model that is wrong."""
        c = self.config
        what = {
            404: f"reward.{self.name}.model and .address, which usually ends in /v1",
        }.get(
            reply.status_code,
            f"the key in {c.key_variable}"
            if c.key_variable
            else f"the key: name its environment variable in reward.{self.name}.key_variable",
        )
        return UserError(f"reward '{self.name}': {c.address} {self.quoted(reply)}; check {what}")

    def quoted(self, reply: httpx.Response) -> str:
        """A reply that is no success, in words."""
        return f"answered with status {reply.status_code}: {self.start(reply)}"

    def start(self, reply: httpx.Response) -> str:
        """The start of a reply on one line, without the key."""
        return self.without_key(" ".join(reply.text.split()))[:SHOWN]

    def words(self, error: Exception) -> str:
        """An error in words, without the key."""
        return self.without_key(" ".join(f"{type(error).__name__} {error}".split()))[:SHOWN]

    def without_key(self, text: str) -> str:
        """A text in which the key, which a server may repeat, is not shown."""
        return text if self.key is None else text.replace(self.key, "***")


def models_of(reply: httpx.Response) -> list[Model]:
    """The models that an endpoint lists; empty if it has no list."""
    if reply.status_code != OK:
        return []
    try:
        return [Model(str(each["id"]), each.get("root")) for each in reply.json()["data"]]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def retry_after(reply: httpx.Response) -> float:
    """The seconds that a server asks to wait; 0 if it does not say."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def is_local(address: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
