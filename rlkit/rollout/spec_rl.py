"""Earlier responses as drafts of new ones: `rollout.draft=spec_rl`, around any engine.

    read every draft in one forward -> keep a prefix -> let the engine continue

The rule and its settings are in `rlkit.rollout.draft_rules` and `rlkit.config.revisits`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from rlkit.interfaces import State
from rlkit.models.policy import Policy
from rlkit.rollout.base import (
    EngineAround,
    Generation,
    GenerationCall,
    RolloutEngine,
    Stream,
)
from rlkit.rollout.draft_rows import Counts, Ends, Row, beginning, to_continue
from rlkit.rollout.draft_rules import accepted_prefix, equal_prefix
from rlkit.rollout.hf import numbered_draws
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.partial import OPEN, extended
from rlkit.rollout.sampling import KEPT, Choice, Sampler
from rlkit.rollout.stops import Stops, end_tokens, special_tokens
from rlkit.rollout.verify import draws_at, scores_of
from rlkit.rollout.visits import Stored, Visits

DRAFT, REST = "draft", "continued"
"""The draws at a draft's places, and those of what follows."""


class SpecRL(EngineAround):
    """An engine whose responses begin as those of the prompt's previous visit, where they may.

    Response i of a visit is the draft of response i of the next. With the exact rule the policy's
    distribution at every place of the draft is inverted at a number of that place, as the engine hf
    does while it samples; the tokens that come out equal are kept, the first other one takes its
    place, and the engine continues from there. Every token is a draw of the current policy, and
    gets its log-prob and version. With numbers that are new (the default) the responses are
    independent of everything before, given the weights. With those that drew the draft they are
    samples of any policy that was fixed before the numbers were; but the policy has learned from
    what they drew, and a prompt's visits repeat the same chances, so this is no independent
    sampling. With the lenient rule, kept tokens keep the log-prob and version of the weights that
    sampled them. Source: SPEC-RL (arXiv:2509.23232). Status: adapted: the lenient rule is the
    paper's, the exact one is ours.

    Public code: ShopeeLLM/Spec-RL, `spec_cut_with_knobs`, has the lenient rule; it gives kept
    tokens the current policy's log-prob, as if that had sampled them.
    """

    sources = ("2509.23232",)

    def __init__(self, inner: RolloutEngine[Any]) -> None:
        super().__init__(inner)
        self.visits = Visits(self.config.draft_tokens)
        self.counts, self.version = Counts(), 1

    def start(self, policy: Policy, seed: int) -> None:
        """Start the engine; note what ends a response."""
        self.inner.start(policy, seed)
        self.policy, self.seed = policy, seed
        stops = Stops.of(self.config.stop, special_tokens(policy.tokenizer))
        ends = frozenset([*end_tokens(policy), *stops.tokens])
        self.ends = Ends(ends, stops, policy.tokenizer)

    def sync(self, step: int) -> None:
        """Let the engine do so; drafts are read with the policy itself."""
        self.inner.sync(step)
        self.version = step

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request; whole ones of training are the drafts of the next visit."""
        parts = any(len(r.prefix) or r.max_tokens is not None for r in call.own)
        if call.greedy or call.evaluates or call.sampling is not None or parts:
            return self.inner.generate(call)
        rows = list(self._rows(call))
        started = time.perf_counter()
        self._read([row for row in rows if row.draft is not None], call)
        self.counts.seconds += time.perf_counter() - started
        plain = self.config.draft_uniforms == "new" and all(row.draft is None for row in rows)
        done = self._all_new(call) if plain else self._continued(rows, call)
        flat = iter(done)
        found = [[next(flat) for _ in range(request.n)] for request in call.own]
        self._count(rows, done)
        stored = iter(
            [self._stored(row, one, call.stream) for row, one in zip(rows, done, strict=True)]
        )
        for request in call.own:
            self.visits.add(request.prompt.prompt_id, [next(stored) for _ in range(request.n)])
        return found

    def metrics(self) -> dict[str, float]:
        """What was kept and generated since it was last asked, and the engine's own."""
        found = self.counts.metrics(self.visits.tokens)
        self.counts = Counts()
        return {**self.inner.metrics(), **found}

    def state_dict(self) -> State:
        """The drafts, and the engine's state."""
        return {"inner": self.inner.state_dict(), "drafts": self.visits.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state.get("inner", {}))
        self.visits.load_state_dict(state.get("drafts", {}))

    def _rows(self, call: GenerationCall) -> Iterator[Row]:
        """Every response that is asked for, with its draft; each draft serves once."""
        first, _, _ = call.part.indices(len(call.requests))
        number = sum(request.n for request in call.requests[:first])
        for request in call.own:
            drafts = list(filter(self._usable, self.visits.take(request.prompt.prompt_id)))
            for place in range(request.n):
                yield Row(number, request, drafts[place] if place < len(drafts) else None)
                number += 1

    def _usable(self, draft: Stored) -> bool:
        """Whether a draft has what its rule reads; `stored` reads the numbers that drew it."""
        known = len(draft.uniform) == len(draft.response.response_ids)
        return known or self.config.draft_uniforms == "new"

    def _read(self, rows: Sequence[Row], call: GenerationCall) -> None:
        """Keep what may be kept of each draft; the ranks share the forwards."""
        if not rows:
            return
        for row in rows:
            assert row.draft is not None
            count = len(row.draft.response.response_ids)
            row.uniform = row.draft.uniform
            if self.config.draft_uniforms == "new":
                drawn = numbered_draws(self.seed, _stream(call.stream, DRAFT), row.number, count)
                row.uniform = torch.from_numpy(drawn)
        processes = self.policy.processes
        own = rows[processes.share(len(rows))]
        with self.policy.full_weights():
            choices = self._choices(own)
        cut = [self._cut(row, choice) for row, choice in zip(own, choices, strict=True)]
        found: State = {"begun": pack(cut), "kept": [row.kept for row in own]}
        told = processes.all_gather(found)
        begun = [one for tree in told for one in unpack(tree["begun"])]
        kept = [count for tree in told for count in tree["kept"]]
        for row, so_far, count in zip(rows, begun, kept, strict=True):
            row.so_far, row.kept = so_far, count

    def _choices(self, rows: Sequence[Row]) -> list[Choice]:
        """The policy's draws at each draft's places; by the lenient rule its view of the draft."""
        c = self.config
        prompts = [row.request.prompt.ids for row in rows]
        drafts = [row.draft.response.response_ids for row in rows if row.draft is not None]
        if c.draft_rule == "lenient":
            return scores_of(self.policy, prompts, drafts)
        sampler = Sampler(c.temperature, c.top_p, c.top_k, greedy=False)
        return draws_at(self.policy, prompts, drafts, [row.uniform for row in rows], sampler)

    def _cut(self, row: Row, choice: Choice) -> Generation:
        """What a response begins with, open if it goes on."""
        assert row.draft is not None
        draft = row.draft.response
        if self.config.draft_rule == "lenient":
            row.kept = accepted_prefix(
                choice.logp,
                draft.logp,
                row.uniform,
                scale=self.config.draft_scale,
                bias=self.config.draft_bias,
            )
            begun = beginning(draft, row.kept)
        else:
            row.kept = equal_prefix(choice.token, draft.response_ids)
            begun = self._drawn(choice, min(row.kept + 1, len(draft.response_ids)))
        if row.kept == len(draft.response_ids) and draft.finish_reason == "stop":
            return replace(begun, finish_reason="stop")
        if row.kept < len(begun.response_ids) and self.ends.after(begun.response_ids):
            return replace(begun, finish_reason="stop")
        full = len(begun.response_ids) >= self.config.room(row.request)
        return replace(begun, finish_reason="length" if full else OPEN)

    def _drawn(self, choice: Choice, count: int) -> Generation:
        """The policy's first draws as the beginning of a response."""
        kept = choice.kept
        return Generation(
            response_ids=choice.token[:count].clone(),
            logp=choice.logp[:count].clone(),
            policy_version=torch.full((count,), self.version, dtype=torch.int32),
            finish_reason=OPEN,
            extras={} if kept is None else {KEPT: kept[:count].clone()},
        )

    def _all_new(self, call: GenerationCall) -> list[Generation]:
        """The engine's own answer, where no response has a draft."""
        return [one for group in self.inner.generate(call) for one in group]

    def _continued(self, rows: Sequence[Row], call: GenerationCall) -> list[Generation]:
        """Each response, begun from its draft and continued by the engine."""
        live = [row for row in rows if row.so_far.finish_reason == OPEN]
        found: list[list[Generation]] = []
        if live:
            numbers = [row.number for row in live]
            going = GenerationCall(to_continue(live), _stream(call.stream, REST), numbers=numbers)
            found = self.inner.generate(going)
        more = iter([one for group in found for one in group])
        out = []
        for row in rows:
            whole = row.so_far
            if whole.finish_reason == OPEN:
                rest = next(more)
                whole = rest if row.draft is None else extended(whole, rest, rest.finish_reason)
            out.append(whole)
        return out

    def _count(self, rows: Sequence[Row], done: Sequence[Generation]) -> None:
        """Count what happened."""
        c = self.counts
        lengths = [len(one.response_ids) for one in done]
        begun = [len(row.so_far.response_ids) for row in rows]
        rest = [length - start for length, start in zip(lengths, begun, strict=True)]
        c.responses += len(rows)
        c.drafts += sum(row.draft is not None for row in rows)
        c.tokens += sum(lengths)
        c.kept += sum(row.kept for row in rows)
        c.generated += sum(rest)
        c.saved += max(lengths, default=0) - max(rest, default=0)

    def _stored(self, row: Row, response: Generation, stream: Stream) -> Stored:
        """A response as the draft of the next visit, with its numbers if they are to be kept."""
        if self.config.draft_uniforms == "new":
            return Stored(response)
        begun = len(row.so_far.response_ids)
        rest = len(response.response_ids) - begun
        drawn = numbered_draws(self.seed, _stream(stream, REST), row.number, rest)
        return Stored(response, torch.cat([row.uniform[:begun], torch.from_numpy(drawn)]))


def _stream(stream: Stream, of: str) -> Stream:
    """The stream of a part of a call's draws."""
    name, step, attempt = stream
    return f"{name}/{of}", step, attempt
