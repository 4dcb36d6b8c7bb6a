"""One batch of responses being generated with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.batch import Request
from rlkit.interfaces import Tokens
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.decoders import CarriedDecoder, Decoder, SharedDecoder
from rlkit.rollout.sampling import KEPT, Sampler
from rlkit.rollout.stops import contain, now_contain

if TYPE_CHECKING:
    from rlkit.rollout.hf import HFRollout


class HFBatch:
    """One batch being generated. Finished rows leave it as soon as that pays.

    What was sampled is fetched once per position; which rows go on is then known on the CPU, and
    nothing else waits for the device before the end.
    """

    def __init__(
        self,
        engine: HFRollout[Any],
        call: GenerationCall,
        requests: Sequence[Request],
        uniform: Tensor,
    ) -> None:
        self.engine = engine
        config = call.settings(engine.config)
        self.sampler = Sampler(config.temperature, config.top_p, config.top_k, call.greedy)
        self.model, self.device = engine.model, engine.policy.device
        self.uniform = uniform.to(self.device)
        self.requests = requests
        self.counts = torch.tensor([r.n for r in requests])
        self.written = [r.prefix.tolist() for r in requests for _ in range(r.n)]
        """Each response so far with its prefix, where stop texts are looked for."""
        count, length = uniform.shape
        self.ids = torch.zeros(count, length, dtype=torch.int64)
        self.logp = torch.zeros(count, length, device=self.device)
        self.kept = torch.zeros(count, length, device=self.device)
        room = torch.tensor([config.room(r) for r in requests])
        self.room = room.repeat_interleave(self.counts)
        self.lengths = self.room.clone()
        self.stopped = torch.zeros(count, dtype=torch.bool)

    def run(self) -> list[Generation]:
        """Generate until every row has stopped or is full."""
        logits, decoder = self._prefill()
        with decoder.running():
            self._decode(logits, decoder)
        return self._collect()

    def _decode(self, logits: Tensor, decoder: Decoder) -> None:
        """Every token, from the logits [b, V] of the first."""
        rows = torch.arange(len(self.ids))
        places = rows.to(self.device)
        for position in range(self.ids.shape[1]):
            token = self._step(logits, places, position)
            self._record(rows, token.cpu(), position)
            live = ~self.stopped[rows] & (position + 1 < self.room[rows])
            count = int(live.sum())
            if position + 1 == self.ids.shape[1] or not count:
                return
            if decoder.leave(count, len(rows)):
                keep = live.nonzero().squeeze(-1)
                rows, kept = rows[keep], keep.to(self.device)
                decoder.keep(keep)
                places, token = places[kept], token[kept]
            logits = decoder.step(token)

    def _prefill(self) -> tuple[Tensor, Decoder]:
        """The last logits of each request, for each of its responses, and what goes on there."""
        empty = [torch.zeros(0, dtype=torch.int64)] * len(self.requests)
        prompts = Tokens.of([r.ids for r in self.requests], empty)
        width = prompts.prompt_ids.shape[1]
        inputs = {k: v[:, :width] for k, v in prompts.model_inputs(self.device).items()}
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        request = torch.arange(len(self.requests)).repeat_interleave(self.counts)
        mask = inputs["attention_mask"]
        logits = output.logits[:, -1][request.to(self.device)]
        if self.engine.shares_prompts:
            room = int(self.room.max())
            return logits, SharedDecoder(self.model, output, request, mask, room)
        return logits, CarriedDecoder(self.model, output, request, mask)

    def _step(self, logits: Tensor, places: Tensor, position: int) -> Tensor:
        """Choose one token for the rows still in the batch, at these places, [b]."""
        chosen = self.sampler(logits, self.uniform[places, position])
        self.logp[places, position] = chosen.logp
        if chosen.kept is not None:
            self.kept[places, position] = chosen.kept
        return chosen.token

    def _record(self, rows: Tensor, token: Tensor, position: int) -> None:
        """Note the tokens of some rows, and which of these end there. All on the CPU."""
        self.ids[rows, position] = token
        ended = torch.isin(token, self.engine.ends)
        live = ~self.stopped[rows] & (position < self.room[rows])
        if self.engine.stops.searched:
            for row, new in zip(rows[live].tolist(), token[live].tolist(), strict=True):
                self.written[row].append(new)
            ended[live] |= self._hit_stop(rows[live], position)
        now = rows[ended & live]
        self.lengths[now] = position + 1
        self.stopped[now] = True

    def _hit_stop(self, rows: Tensor, position: int) -> Tensor:
        """Whether a stop text appears in each row's response so far, which begins in its prefix."""
        whole = [self.written[row] for row in rows.tolist()]
        hit = torch.zeros(len(rows), dtype=torch.bool)
        look = contain if position == 0 else now_contain  # a prefix may hold one
        for texts, skip in self.engine.stops.searched:
            found = look(self.engine.policy.tokenizer, whole, texts, skip)
            hit |= torch.tensor(found, dtype=torch.bool)
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
                    extras={KEPT: kept[row, :length].clone()} if self.sampler.truncates else {},
                )
            )
        return out
