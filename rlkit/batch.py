"""The data passed between parts.

Shapes: B responses, T response tokens (right-padded), P prompt tokens. Log-probs are natural
logarithms at `rollout.temperature`, float32. One word per idea: `behavior_` is the policy that
sampled a token, `prox_` the policy at the start of the training step, `anchor_` a reference the
policy is kept close to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

Messages = list[dict[str, str]]
NOTHING = torch.zeros(0, dtype=torch.int64)
"""No tokens."""
CACHED = "anchor_logp:"
"""How the names of those `Sample.extras` begin that only cache log-probs under a reference."""
REPLAY_WEIGHT = "replay_weight"
"""The entry of `Sample.extras` by which a buffer undoes how it draws: an importance weight above
0. A response without one counts fully."""
NO_ROWS = torch.zeros(0, dtype=torch.bool)
"""Left out: false for every response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One problem to answer, with its token ids and the data set's columns (answer, metadata)."""

    prompt_id: str
    text_or_messages: str | Messages
    ids: Tensor
    """[P] int64, chat template applied if the tokenizer has one."""
    columns: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response, on the CPU, as a buffer keeps it."""

    sample_id: int
    prompt_id: str
    response_ids: Tensor
    """[T] int64"""
    loss_mask: Tensor
    """[T] bool; False marks a token that is not the policy's own."""
    behavior_logp: Tensor
    """[T] float32, log-prob under the policy that sampled it, before any top_p/top_k truncation."""
    policy_version: Tensor
    """[T] int32, the training step k whose start weights (pi_k) sampled the token."""
    reward: float
    rewards: Mapping[str, float]
    finish_reason: str
    """"stop", "length", or of an episode also "turns", "time", "template" or "tool_error"."""
    source: str = "policy"
    """"policy", "expert" or "draft"."""
    step: int
    """The training step that generated it."""
    extras: dict[str, Tensor | float] = field(default_factory=dict)
    """Further values kept with the sample; the run caches log-probs of a frozen base here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Responses to one prompt, maybe of several steps: the unit of group statistics."""

    prompt: Prompt
    samples: list[Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """An expert's response to a prompt, of unknown probability under whatever policy wrote it."""

    number: int
    """Counts from 1; the sample it becomes has the id -number."""
    response_ids: Tensor
    """[T] int64"""
    reward: float | None = None
    """None = scored by the run's rewards, as the policy's own responses are."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a buffer asks for: n new responses to a prompt, and demonstrations to join them."""

    prompt: Prompt
    n: int
    demonstrations: Sequence[Demonstration] = ()
    prefix: Tensor = NOTHING
    """[T] int64, the first tokens of each response, which are given and not generated."""
    max_tokens: int | None = None
    """Most tokens to generate after the prefix now; None = up to the engine's limit."""

    @property
    def ids(self) -> Tensor:
        """What the model reads before the first new token, [P + T]."""
        return torch.cat([self.prompt.ids, self.prefix])


@dataclass(frozen=True, slots=True)
class Score:
    """The current policy's scores of a stored or trained sample."""

    logp: Tensor
    """[T] float32"""
    entropy: float
    """Mean token entropy in nats."""
    advantage: float
    """Mean advantage over the response; 0 for samples that were only scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Responses as tensors with one row for each."""

    def rows(self, index: Tensor) -> Self:
        """The responses at `index` ([b] int64), in that order."""
        return self.map(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with each tensor changed."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in found.items():
            whole = isinstance(value, Tensor)
            found[name] = change(value) if whole else {k: change(v) for k, v in value.items()}
        return type(self)(**found)


@dataclass(frozen=True, slots=True)
class PolicyTerms(_Rows):
    """What a loss reads of the current policy, per response token."""

    logp: Tensor
    """[B, T], differentiable."""
    entropy: Tensor
    """[B, T], nats; differentiable if the loss needs "entropy", zeros if nothing asked for it."""
    head: Tensor = NOTHING
    """[B], what the loss's own module makes of the prompt, differentiable; zeros if it has none."""

    def __post_init__(self) -> None:
        if self.head is NOTHING:
            object.__setattr__(self, "head", self.logp.new_zeros(self.logp.shape[:1]))

    def detach(self) -> PolicyTerms:
        """The same values, detached from the graph."""
        return self.map(Tensor.detach)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch(_Rows):
    """What a loss reads about the responses of a (micro-)batch.

    Nothing in it carries a gradient.
    """

    mask: Tensor
    """[B, T] bool"""
    advantage: Tensor
    """[B, T]; a sequence-level advantage is broadcast over its tokens."""
    behavior_logp: Tensor
    """[B, T], the policy that sampled the response (pi_{k-i})."""
    prox_logp: Tensor
    """[B, T], the policy at the start of this step (pi_k); behavior_logp if no part needs it."""
    anchor_logp: Mapping[str, Tensor]
    """Reference name -> [B, T]."""
    reward: Tensor
    """[B]"""
    group: Tensor
    """[B] int64, numbers the Group objects."""
    age: Tensor
    """[B] int64, step - min(policy_version): how stale the weights were; 0 = sampled by pi_k."""
    expert: Tensor
    """[B] bool, a demonstration whose behavior_logp is unknown (zeros)."""
    replayed: Tensor = NO_ROWS
    """[B] bool, from a buffer's store and not one of this step's fresh responses; none if left out.
    It says nothing of the age: fresh responses of lagging weights have age > 0."""
    truncated: Tensor = NO_ROWS
    """[B] bool, responses cut at the length limit; none if left out."""
    response_ids: Tensor = NOTHING
    """[B, T] int64, right-padded with 0; all 0 if left out."""
    rewards: Mapping[str, Tensor] = field(default_factory=dict)
    """Each reward component by name, [B]; 0 if it does not apply to a response."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What `Sample.extras` holds, by name: [B, T] or [B], 0 for a response without it. A buffer can
    hand importance weights to a loss here."""

    def __post_init__(self) -> None:
        for name in ("replayed", "truncated"):
            if getattr(self, name).shape != self.expert.shape:
                object.__setattr__(self, name, torch.zeros_like(self.expert))
        if self.response_ids.dim() == 1:
            blank = torch.zeros_like(self.mask, dtype=torch.int64)
            object.__setattr__(self, "response_ids", blank)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageBatch(_Rows):
    """What an advantage estimator reads: the whole batch of a step."""

    reward: Tensor
    """[B], the outcome; an in-reward KL penalty is already subtracted (summed over the
    response)."""
    rewards: Mapping[str, Tensor]
    """Each reward component, [B]."""
    reward_weights: Mapping[str, Tensor] = field(default_factory=dict)
    """What each counts in the total, [B]; empty if left out."""
    reward_applies: Mapping[str, Tensor] = field(default_factory=dict)
    """[B] bool, whether each component applies to a response; empty if left out."""
    token_reward: Tensor
    """[B, T], the outcome on the last valid token, in-reward KL already subtracted."""
    greedy_reward: Tensor
    """[B], the reward of the prompt's greedy response; zeros unless the estimator needs it."""
    mask: Tensor
    """[B, T] bool"""
    group: Tensor
    """[B] int64"""
    age: Tensor
    """[B] int64"""
    expert: Tensor
    """[B] bool"""
    values: Tensor
    """[B, T], the critic's values before each token; zeros unless the estimator needs a critic."""
    behavior_logp: Tensor
    prox_logp: Tensor
    anchor_logp: Mapping[str, Tensor]
    replayed: Tensor = NO_ROWS
    """[B] bool, as in `LossBatch`; none if left out."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """As in `LossBatch`; what it holds of turns is described in `rlkit.interfaces.turns`."""

    def __post_init__(self) -> None:
        if self.replayed.shape != self.expert.shape:
            object.__setattr__(self, "replayed", torch.zeros_like(self.expert))


@dataclass(frozen=True, slots=True)
class AdvantageOutput:
    """The advantage a loss reads and the returns a critic is fitted to."""

    advantage: Tensor
    """[B, T]"""
    returns: Tensor
    """[B, T]"""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the loss. The framework aggregates it over the whole minibatch."""

    name: str
    """Unique among the terms of a loss, its corrections and the anchor."""
    value: Tensor
    """[B, T] per token, or [B] per sequence, which then has the total weight of its tokens: under
    seq-mean-token-mean every sequence counts the same."""
    mask: Tensor
    """[B, T] bool; under scope "token" it may depend on the batch but not on the policy's
    log-probs."""
    weight: float = 1.0
    aggregation: str | None = None
    """None = the loss's own."""
    corrected: bool = True
    """Whether corrections weight it. False for a penalty, a bonus or an imitation term, which are
    not estimates under the behavior policy."""
    rows: Tensor | None = None
    """[B] bool, its responses, of which `count_empty_rows` counts the empty ones; None = all."""


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A loss's terms, and metrics still unreduced ([B, T] or [B])."""

    terms: Sequence[Term]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Corrected:
    """A correction's result: the batch, its mask perhaps smaller, and a detached weight."""

    batch: LossBatch
    weight: Tensor
    """[B, T]"""
