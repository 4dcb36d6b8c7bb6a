"""Sampling with vLLM servers started separately."""

from __future__ import annotations

import tempfile
from typing import Annotated

import torch
from pydantic import Field

from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.rollout.vllm.client import Server
from rlkit.rollout.vllm.dispatch import Dispatch, on_each
from rlkit.rollout.vllm.probe import Evidence, Probe
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig, by_request, generation
from rlkit.rollout.vllm.worker import checksum
from rlkit.rollout.weights import write_weights


class VLLMServerConfig(VLLMSamplingConfig):
    """Settings of vLLM servers."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1)] = ("http://127.0.0.1:8000",)
    """Where they listen; `python -m rlkit.serve` starts one. Whoever can reach a server controls
    it, so keep servers on this machine or on a private network. A key in the environment variable
    VLLM_API_KEY is passed on."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Responses in progress per server."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds a server may take for a response, or for loading the weights."""
    tries: Annotated[int, Field(ge=1)] = 3
    """Attempts before a server is dropped for the rest of the run."""
    backoff_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the next attempt, doubled each time."""
    sync_dir: str | None = None
    """The folder through which servers get the weights; they must see it under the same path. null
    = this machine's temporary folder."""


@register("rollout", "vllm_server")
class VLLMServerRollout(RolloutEngine[VLLMServerConfig]):
    """One or more vLLM servers; behavior log-probs are theirs.

    A server that dies, hangs, is late or answers with an error is retried and then dropped; the
    others take over its responses. A run stops if none is left. Every sync is verified by a probe
    on each server. Status: our choice.
    """

    hosted_by = "main process"

    def start(self, policy: Policy, seed: int) -> None:
        """Give the servers the policy's weights."""
        c = self.config
        self.policy, self.asker = policy, Asker.of(policy, seed)
        self.probe = Probe(policy, c, self.asker)
        self.servers = [
            Server(address, timeout=c.timeout_s, tries=c.tries, backoff=c.backoff_s)
            for address in dict.fromkeys(c.addresses)
        ]
        self.sync(1)

    def sync(self, step: int) -> None:
        """Hand over the policy's weights through a folder and verify that they arrived."""
        self.probe.score()

        def take(server: Server) -> None:
            dtype = self._dtype(server)
            report = server.take(folder, self.config.temperature, step)
            evidence = Evidence(
                logp=server.score(self.probe.ids),
                stale_head=float(server.worker("rlkit_stale_head")),
                dtype=dtype,
                report=report,
            )
            self.probe.check(evidence, f"vLLM server {server.address}", step, sent)

        with tempfile.TemporaryDirectory(prefix="rlkit-sync-", dir=self.config.sync_dir) as folder:
            weights = write_weights(self.policy, folder)
            sent = {name: checksum(tensor) for name, tensor in weights.items()}
            on_each(self.servers, take)

    def _dtype(self, server: Server) -> torch.dtype:
        """What a server computes in. Raises UserError if that is not `rollout.dtype`."""
        found, asked = server.worker("rlkit_dtype"), self.config.dtype
        if asked not in (None, found):
            raise UserError(
                f"vLLM server {server.address} computes in {found}, but rollout.dtype={asked}: "
                f"start it with --dtype {asked}, or leave rollout.dtype out"
            )
        dtype: torch.dtype = getattr(torch, found)
        return dtype

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order."""
        on_each(self.servers, Server.expect)
        jobs = self.asker.jobs(call, self.config)
        answers = Dispatch(jobs).run(self.servers, self.config.concurrency)
        flat = [generation(a, self.config, call) for a in answers]
        return by_request(flat, call.own)
