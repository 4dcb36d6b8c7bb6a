"""One vLLM server as rlkit sees it: JSON over HTTP, with a time limit and one kind of failure."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.rollout.vllm.sampling import Answer, Job

API_KEY = "VLLM_API_KEY"
"""The environment variable with the key; vLLM itself reads the same one."""


class ServerFault(Exception):
    """A server did not answer, answered too late, or with an error."""


class Server:
    """The calls rlkit makes to a server, each over its own connection.

    They raise ServerFault, whatever goes wrong, after `tries` attempts with a back-off that
    doubles.
    """

    def __init__(self, address: str, *, timeout: float, tries: int, backoff: float) -> None:
        self.address = address
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"rollout.addresses: '{address}' is not an address like http://127.0.0.1:8000"
            )
        self.secure, self.host, self.port = parts.scheme == "https", parts.hostname, parts.port
        self.timeout, self.tries, self.backoff = timeout, tries, backoff
        self.version: str | None = None
        """The version of its weights; None while it loads new ones."""
        self.fault: str | None = None
        """Why it was dropped."""

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST a body, or GET without one; the reply as JSON, None if it is empty."""
        attempt = 0
        while True:
            try:
                if attempt:
                    self._compare(self._once("/weight_info", None))
                return self._once(path, body)
            except ServerFault:
                attempt += 1
                if attempt >= self.tries or self.fault is not None:
                    raise
                time.sleep(self.backoff * 2 ** (attempt - 1))

    def expect(self) -> None:
        """Check that it has the weights it was given: a restarted server does not."""
        self._compare(self.call("/weight_info"))

    def _compare(self, held: Mapping[str, str]) -> None:
        found = held["weight_version"]
        if self.version is not None and found != self.version:
            raise ServerFault(f"it has the weights of version '{found}', not of '{self.version}'")

    def _once(self, path: str, body: Mapping[str, Any] | None) -> Any:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {key}"
        try:
            method = "GET" if body is None else "POST"
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
            if response.status != http.client.OK:
                reason = text[:200].decode(errors="replace")
                raise ServerFault(f"{path}: status {response.status}: {reason}")
            return json.loads(text) if text else None
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise ServerFault(f"{path}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()

    def worker(self, method: str, *arguments: Any) -> Any:
        """Call a method of `RlkitWorker` on the server's first worker."""
        answer = self.call("/collective_rpc", {"method": method, "args": list(arguments)})
        return answer["results"][0]

    def take(self, folder: str, temperature: float, step: int) -> dict[str, Any]:
        """Load the weights of a folder as version `step`; returns the worker's report."""
        self.version = None
        self.worker("rlkit_temperature", temperature)
        report: dict[str, Any] = self.worker("rlkit_load", folder)
        self.call("/reset_prefix_cache", {})
        self.call("/update_weight_version", {"new_version": str(step)})
        self.version = str(step)
        return report

    def score(self, ids: list[int]) -> Tensor:
        """Log-probs of all ids but the first."""
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        scored = self.call("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        rest = zip(scored[1:], ids[1:], strict=True)
        return torch.tensor([found[str(token)]["logprob"] for found, token in rest])

    def complete(self, job: Job) -> Answer:
        """One response."""
        asked = {
            "prompt": job.prompt_ids,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **job.parameters,
        }
        choice = self.call("/v1/completions", asked)["choices"][0]
        return Answer(
            ids=choice["token_ids"],
            logp=choice["logprobs"]["token_logprobs"],
            top=[list((row or {}).values()) for row in choice["logprobs"]["top_logprobs"]],
            finish_reason=choice["finish_reason"],
            version=[int(self.version or 0)] * len(choice["token_ids"]),
        )
