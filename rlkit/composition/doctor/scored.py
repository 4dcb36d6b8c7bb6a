"""The trainer's own log-probs of the engine's responses, as many as the time allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlkit.batch import PolicyTerms, Prompt
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.ops import pad
from rlkit.rollout.base import Generation
from rlkit.training.micro_batches import Forwards, MicroBatches, default_tokens

if TYPE_CHECKING:
    from rlkit.composition.doctor.patient import Patient

Answer = tuple[Prompt, Generation]
MOST, LEAST, TIMED = 64, 4, 2
"""Responses that are scored: at most, and at least; and those that measure the speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """B responses under the engine and under the trainer; [B, T] each, zeros where padded."""

    answers: Sequence[Answer]
    tokens: Tokens
    engine: Tensor
    """The engine's log-probs."""
    own: PolicyTerms
    """The trainer's log-probs and entropies."""
    again: Tensor
    """[n] |engine - trainer| of all tokens of `Answers.again`."""
    per_second: float
    """Prompt and response tokens that the trainer scored per second."""

    @property
    def mask(self) -> Tensor:
        """[B, T] bool, tokens of the responses."""
        return torch.arange(self.engine.shape[1]) < self.tokens.response_lengths[:, None]

    @property
    def difference(self) -> Tensor:
        """[B, T] the engine's log-probs minus the trainer's."""
        return torch.where(self.mask, self.engine - self.own.logp, 0.0)


def score_answers(patient: Patient, seconds: float) -> Scored:
    """Score responses in the order they were asked for, for about so many seconds.

    Which are scored does not depend on what they hold, so that means over them are unbiased.
    """
    policy, answers = patient.policy, patient.answers.flat
    forwards = forwards_of(patient)
    head, rest = answers[:LEAST], answers[LEAST:MOST]
    started = time.perf_counter()
    terms_of(policy, tokens_of(head[:TIMED]), forwards)
    speed = total(head[:TIMED]) / (time.perf_counter() - started)
    room = speed * seconds - total(head)
    chosen = list(head)
    for answer in rest:
        if room <= 0:
            break
        chosen.append(answer)
        room -= total([answer])
    tokens = tokens_of(chosen)
    started = time.perf_counter()
    own = terms_of(policy, tokens, forwards)
    took = time.perf_counter() - started
    again = patient.answers.again
    return Scored(
        answers=chosen,
        tokens=tokens,
        engine=engine_logp(chosen),
        own=own,
        again=differences(policy, again, forwards) if again else torch.zeros(0),
        per_second=total(chosen) / took,
    )


def forwards_of(patient: Patient) -> Forwards:
    """Forwards in the run's micro-batches."""
    policy, train = patient.policy, patient.c.config.train
    size = train.micro_batch_tokens or default_tokens(policy.device)
    return Forwards(MicroBatches(size, policy.processes, policy.layout), policy.processes)


def tokens_of(answers: Sequence[Answer]) -> Tokens:
    """Prompts and responses as a model reads them."""
    return Tokens.of([p.ids for p, _ in answers], [g.response_ids for _, g in answers])


def engine_logp(answers: Sequence[Answer]) -> Tensor:
    """[B, T], the engine's log-probs."""
    longest = max(len(g.response_ids) for _, g in answers)
    return pad([g.logp for _, g in answers], max(1, longest))


def total(answers: Sequence[Answer]) -> int:
    """Prompt and response tokens."""
    return sum(len(p.ids) + len(g.response_ids) for p, g in answers)


def terms_of(policy: Policy, tokens: Tokens, forwards: Forwards) -> PolicyTerms:
    """The trainer's log-probs and entropies, [B, T]."""

    def forward(part: Tokens) -> Tensor:
        terms = policy.terms(part, "value")
        return torch.stack([terms.logp, terms.entropy], -1)

    rows = torch.arange(len(tokens.prompt))
    logp, entropy = forwards.by_rows(forward, tokens, rows, (2,)).unbind(-1)
    return PolicyTerms(logp=logp, entropy=entropy)


def differences(policy: Policy, answers: Sequence[Answer], forwards: Forwards) -> Tensor:
    """[n] |engine - trainer| of every token of some responses."""
    tokens = tokens_of(answers)
    engine = engine_logp(answers)
    own = terms_of(policy, tokens, forwards).logp
    mask = torch.arange(engine.shape[1]) < tokens.response_lengths[:, None]
    return (engine - own)[mask].abs()
