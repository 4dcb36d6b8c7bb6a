"""Sampling with transformers on the policy's own weights, or on a copy if it lags."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, State, Tokens
from rlkit.models.memory import SMALLER, is_out_of_memory, release
from rlkit.models.policy import Policy
from rlkit.ops import stream_rng
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig, RolloutEngine
from rlkit.rollout.probe import check_engine
from rlkit.rollout.states import Carried
from rlkit.rollout.stops import Stops, end_tokens, special_tokens

KEPT = "kept_logmass"


class HFConfig(RolloutConfig):
    """Settings of the transformers engine."""

    generation_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses generated at once; the samples do not depend on it. Halved where memory does not
    suffice."""
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
    most: int | None = None
    """Responses that fitted at once, since more did not; part of the state."""

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
        self.stops = Stops.of(self.config.stop, special_tokens(policy.tokenizer))
        ends = [*end_tokens(policy), *self.stops.tokens]
        self.ends = torch.tensor(ends, dtype=torch.int64)
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
        training = self.model.training
        self.model.train(False)
        try:
            flat = iter(self._answers(call, uniform))
        finally:
            self.model.train(training)
        return [[next(flat) for _ in range(request.n)] for request in call.own]

    def _answers(self, call: GenerationCall, uniform: Tensor) -> list[Generation]:
        """Every response, one request after the other; in smaller batches once one did not fit."""
        out: list[Generation] = []
        rest = list(call.own)
        while rest:
            chunk, left = self._next_batch(rest)
            rows = sum(request.n for request in chunk)
            draws = uniform[len(out) : len(out) + rows]
            try:
                with self.policy.autocasting():
                    out += _Batch(self, chunk, draws, call.greedy).run()
                rest = left
                if call.tell is not None:
                    call.tell(max(0, len(call.own) - len(rest)))
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if rows <= 1:
                    raise UserError(
                        f"out of memory generating one response; use {SMALLER}"
                    ) from error
            release()
            self.most = rows // 2
        return out

    def _next_batch(self, requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
        """The requests that are answered at once now, and those left.

        A request's responses are generated together, unless as many did not fit.
        """
        first, rest = requests[0], list(requests[1:])
        most = self.config.generation_batch_size
        if self.most is not None and self.most < first.n:
            return [replace(first, n=self.most)], [replace(first, n=first.n - self.most), *rest]
        if self.most is not None:
            most = min(most, self.most)
        batch, rows = [first], first.n
        while rest and rows + rest[0].n <= most:
            rows += rest[0].n
            batch.append(rest.pop(0))
        return batch, rest

    def state_dict(self) -> State:
        """How many responses fitted, if memory did not suffice for as many as asked."""
        return {} if self.most is None else {"most": self.most}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.most = state.get("most")


class _Batch:
    """One batch being generated. Finished rows leave it once they are half of it.

    What was sampled is fetched once per position; which rows go on is then known on the CPU, and
    nothing else waits for the device before the end.
    """

    def __init__(
        self, engine: HFRollout[Any], requests: Sequence[Request], uniform: Tensor, greedy: bool
    ) -> None:
        self.engine, self.config, self.greedy = engine, engine.config, greedy
        self.model, self.device = engine.model, engine.policy.device
        self.uniform = uniform.to(self.device)
        self.requests = requests
        self.counts = torch.tensor([r.n for r in requests])
        self.prefixes = [r.prefix.tolist() for r in requests for _ in range(r.n)]
        count, length = uniform.shape
        self.ids = torch.zeros(count, length, dtype=torch.int64)
        self.logp = torch.zeros(count, length, device=self.device)
        self.kept = torch.zeros(count, length, device=self.device)
        room = torch.tensor([self.config.room(r) for r in requests])
        self.room = room.repeat_interleave(self.counts)
        self.lengths = self.room.clone()
        self.stopped = torch.zeros(count, dtype=torch.bool)

    def run(self) -> list[Generation]:
        """Generate until every row has stopped or is full."""
        logits, carried, mask = self._prefill()
        rows = torch.arange(len(self.ids))
        places = rows.to(self.device)
        for position in range(self.ids.shape[1]):
            token = self._step(logits, places, position)
            self._record(rows, token.cpu(), position)
            live = ~self.stopped[rows] & (position + 1 < self.room[rows])
            if position + 1 == self.ids.shape[1] or not live.any():
                break
            if 2 * int(live.sum()) <= len(rows):
                keep = live.nonzero().squeeze(-1)
                rows, kept = rows[keep], keep.to(self.device)
                carried = carried.select(kept)
                places, token, mask = places[kept], token[kept], mask[kept]
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
        index = torch.arange(len(self.requests)).repeat_interleave(self.counts).to(self.device)
        logits, mask = output.logits[:, -1], inputs["attention_mask"]
        return logits[index], carried.select(index), mask[index]

    def _step(self, logits: Tensor, places: Tensor, position: int) -> Tensor:
        """Choose one token for the rows still in the batch, at these places, [b]."""
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
            token = pick(allowed, self.uniform[places, position])
            if self.config.truncates:
                self.kept[places, position] = allowed.logsumexp(-1)
        self.logp[places, position] = logp.gather(-1, token[:, None]).squeeze(-1)
        return token

    def _record(self, rows: Tensor, token: Tensor, position: int) -> None:
        """Note the tokens of some rows, and which of these end there. All on the CPU."""
        self.ids[rows, position] = token
        ended = torch.isin(token, self.engine.ends)
        if self.engine.stops.plain or self.engine.stops.mixed:
            ended |= self._hit_stop(rows, position)
        now = rows[ended & ~self.stopped[rows] & (position < self.room[rows])]
        self.lengths[now] = position + 1
        self.stopped[now] = True

    def _hit_stop(self, rows: Tensor, position: int) -> Tensor:
        """Whether a stop text appears in each row's response so far, which begins in its prefix."""
        new = self.ids[rows, : position + 1].tolist()
        whole = [self.prefixes[row] + ids for row, ids in zip(rows.tolist(), new, strict=True)]
        hit = torch.zeros(len(rows), dtype=torch.bool)
        for stops, skip in ((self.engine.stops.plain, True), (self.engine.stops.mixed, False)):
            if not stops:
                continue
            texts = self.engine.policy.tokenizer.batch_decode(whole, skip_special_tokens=skip)
            hit |= torch.tensor([any(stop in text for stop in stops) for text in texts])
        return hit

    def _collect(self) -> list[Generation]:
        ids, logp, kept = self.ids, self.logp.cpu(), self.kept.cpu()
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
