"""Sampling with transformers on the policy's own weights, or on a copy if it lags."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Request
from rlkit.interfaces import PartConfig, Tokens
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig, RolloutEngine
from rlkit.rollout.probe import check_engine
from rlkit.rollout.states import Carried

KEPT = "kept_logmass"


class HFConfig(RolloutConfig):
    """Settings of the transformers engine."""

    generation_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses generated at once; the samples do not depend on it."""
    continues: ClassVar[bool] = True


def truncate(logp: Tensor, top_p: float, top_k: int) -> Tensor:
    """Log-probs [b, V] with the tokens outside top-k and outside the nucleus set to -inf.

    The nucleus is the shortest prefix of the tokens, by decreasing probability, whose mass reaches
    top_p; it is taken after top-k, and always holds the most probable token.
    """
    if top_k:
        kept = logp.topk(min(top_k, logp.shape[-1])).values[:, -1:]
        logp = logp.masked_fill(logp < kept, -torch.inf)
    if top_p < 1:
        ordered, order = torch.sort(logp, dim=-1, descending=True, stable=True)
        mass = (ordered - ordered.logsumexp(-1, keepdim=True)).exp()
        outside = mass.cumsum(-1) - mass >= top_p
        logp = logp.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return logp


def pick(logp: Tensor, uniform: Tensor) -> Tensor:
    """Invert the CDF of each row of log-probs [b, V] at `uniform` [b] in [0, 1).

    The log-probs may be unnormalized; -inf = never.
    """
    cdf = logp.exp().double().cumsum(-1)
    target = uniform.to(cdf.device, torch.float64)[:, None] * cdf[:, -1:]
    return torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp(max=logp.shape[-1] - 1)


HFC = TypeVar("HFC", bound=HFConfig, default=HFConfig)


@register("rollout", "hf")
class HFRollout(RolloutEngine[HFC]):
    """Batched sampling with a key-value cache; behavior log-probs are taken while sampling.

    Each (response, position) has one uniform number of its own and the token is the inverse CDF at
    it, so that the samples do not depend on batching or on rows that finish early.
    """

    Config: ClassVar[type[PartConfig]] = HFConfig

    @property
    def matches_trainer(self) -> bool:
        """It samples with the trainer's own forward."""
        return True

    def start(self, policy: Policy, seed: int) -> None:
        """Share the policy's weights, or copy them if the engine lags, and check the model."""
        self.policy = policy
        self.seed = seed
        self.model = policy.model
        if self.config.sync_every > 1:
            self.model = copy.deepcopy(policy.model).requires_grad_(False).train(False)
        self.version = 1
        configured: Any = getattr(policy.model.generation_config, "eos_token_id", None)
        ends: list[Any] = configured if isinstance(configured, list) else [configured]
        ends = [policy.tokenizer.eos_token_id, *ends]
        self.ends = torch.tensor([end for end in ends if end is not None], dtype=torch.int64)
        check_engine(self, policy)

    def sync(self, step: int) -> None:
        """Copy the weights if they are not shared, and note the version."""
        if self.model is not self.policy.model:
            self.model.load_state_dict(self.policy.model.state_dict())
        self.version = step

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order: what follows its prefix."""
        return self.sample(call)

    @torch.no_grad()
    def sample(self, call: GenerationCall) -> list[list[Generation]]:
        """What `model` generates, whatever a subclass makes of it."""
        counts = [r.n for r in call.requests]
        longest = max(map(self.config.room, call.requests), default=0)
        name, *index = call.stream
        uniform = torch.from_numpy(
            stream_rng(self.seed, name, *index).random((sum(counts), longest))
        )
        start, stop, _ = call.part.indices(len(counts))
        uniform = uniform[sum(counts[:start]) : sum(counts[:stop])]
        out: list[list[Generation]] = []
        first = 0
        training = self.model.training
        self.model.train(False)
        try:
            for chunk in self._chunks(call.own):
                rows = sum(r.n for r in chunk)
                with self.policy.autocasting():
                    flat = _Batch(self, chunk, uniform[first : first + rows], call.greedy).run()
                first += rows
                for request in chunk:
                    out.append(flat[: request.n])
                    flat = flat[request.n :]
        finally:
            self.model.train(training)
        return out

    def _chunks(self, requests: Sequence[Request]) -> list[list[Request]]:
        chunks: list[list[Request]] = []
        rows = self.config.generation_batch_size
        for request in requests:
            if rows + request.n > self.config.generation_batch_size:
                chunks.append([])
                rows = 0
            chunks[-1].append(request)
            rows += request.n
        return chunks


class _Batch:
    """One batch being generated. Finished rows leave it once they are half of it."""

    def __init__(
        self, engine: HFRollout[Any], requests: Sequence[Request], uniform: Tensor, greedy: bool
    ) -> None:
        self.engine, self.config, self.greedy = engine, engine.config, greedy
        self.model, self.device = engine.model, engine.policy.device
        self.uniform = uniform.to(self.device)
        self.requests = requests
        self.counts = torch.tensor([r.n for r in requests], device=self.device)
        self.prefixes = [r.prefix.tolist() for r in requests for _ in range(r.n)]
        count, length = uniform.shape
        self.ids = torch.zeros(count, length, dtype=torch.int64, device=self.device)
        self.logp = torch.zeros(count, length, device=self.device)
        self.kept = torch.zeros(count, length, device=self.device)
        room = torch.tensor([self.config.room(r) for r in requests], device=self.device)
        self.room = room.repeat_interleave(self.counts)
        self.lengths = self.room.clone()
        self.stopped = torch.zeros(count, dtype=torch.bool, device=self.device)
        self.ends = engine.ends.to(self.device)

    def run(self) -> list[Generation]:
        """Generate until every row has stopped or is full."""
        logits, carried, mask = self._prefill()
        rows = torch.arange(len(self.ids), device=self.device)
        for position in range(self.ids.shape[1]):
            token = self._step(logits, rows, position)
            live = ~self.stopped[rows] & (position + 1 < self.room[rows])
            if position + 1 == self.ids.shape[1] or not live.any():
                break
            if 2 * int(live.sum()) <= len(rows):
                keep = live.nonzero().squeeze(-1)
                carried = carried.select(keep)
                rows, token, mask = rows[keep], token[keep], mask[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            output = self.model(input_ids=token[:, None], **carried.inputs(mask))
            logits, carried = output.logits[:, -1], Carried.of(self.model, output, len(rows))
        return self._collect()

    def _prefill(self) -> tuple[Tensor, Carried, Tensor]:
        """Each request once; its cache and its last logits are then repeated for its responses."""
        empty = [torch.zeros(0, dtype=torch.int64)] * len(self.requests)
        prompts = Tokens.of([r.ids for r in self.requests], empty)
        width = prompts.prompt_ids.shape[1]
        inputs = {k: v[:, :width] for k, v in prompts.model_inputs(self.device).items()}
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        carried = Carried.of(self.model, output, len(self.requests))
        index = torch.arange(len(self.requests), device=self.device).repeat_interleave(self.counts)
        logits, mask = output.logits[:, -1], inputs["attention_mask"]
        return logits[index], carried.select(index), mask[index]

    def _step(self, logits: Tensor, rows: Tensor, position: int) -> Tensor:
        """Choose and record one token for the rows still in the batch, [b]."""
        token: Tensor
        logp = (logits.float() / self.config.temperature).log_softmax(-1)
        if self.greedy:
            token = logp.argmax(-1)
        else:
            allowed = (
                truncate(logp, self.config.top_p, self.config.top_k)
                if self.config.truncates
                else logp
            )
            token = pick(allowed, self.uniform[rows, position])
            if self.config.truncates:
                self.kept[rows, position] = allowed.logsumexp(-1)
        self.ids[rows, position] = token
        self.logp[rows, position] = logp.gather(-1, token[:, None]).squeeze(-1)
        ended = torch.isin(token, self.ends)
        if self.config.stop:
            ended |= self._hit_stop(rows, position)
        now = rows[ended & ~self.stopped[rows] & (position < self.room[rows])]
        self.lengths[now] = position + 1
        self.stopped[now] = True
        return token

    def _hit_stop(self, rows: Tensor, position: int) -> Tensor:
        """Whether a stop text appears in each row's response so far, which begins in its prefix."""
        new = self.ids[rows, : position + 1].tolist()
        texts = self.engine.policy.tokenizer.batch_decode(
            [self.prefixes[row] + ids for row, ids in zip(rows.tolist(), new, strict=True)],
            skip_special_tokens=True,
        )
        return torch.tensor([any(stop in text for stop in self.config.stop) for text in texts]).to(
            rows.device
        )

    def _collect(self) -> list[Generation]:
        ids, logp, kept = self.ids.cpu(), self.logp.cpu(), self.kept.cpu()
        out = []
        for row, (length, stopped) in enumerate(
            zip(self.lengths.tolist(), self.stopped.tolist(), strict=True)
        ):
            out.append(
                Generation(
                    response_ids=ids[row, :length].clone(),
                    logp=logp[row, :length].clone(),
                    policy_version=torch.full((length,), self.engine.version, dtype=torch.int32),
                    finish_reason="stop" if stopped else "length",
                    extras={KEPT: kept[row, :length].clone()}
                    if self.config.truncates and not self.greedy
                    else {},
                )
            )
        return out
