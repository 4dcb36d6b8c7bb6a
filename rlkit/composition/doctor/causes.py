"""Why an engine's log-probs may not be the trainer's: each likely cause is tried on the numbers.

A cause is found if the trainer's log-probs, computed as if it held, come within a tenth of the
difference there is, or if the difference stands only where the cause would put it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.composition.doctor.positions import by_position, worst_of
from rlkit.composition.doctor.scored import Scored, forwards_of, terms_of, tokens_of
from rlkit.rollout.sampling import KEPT

if TYPE_CHECKING:
    from rlkit.composition.doctor.patient import Patient

EXPLAINED = 0.1
"""A cause leaves at most this share of the mean difference."""
ROWS = 8
"""Responses on which causes are tried."""
GROWS = 4.0
"""Late tokens differ so many times as much as early ones."""
Cause = tuple[str, str]


class Trial:
    """Some responses under the engine and the trainer, to try causes on."""

    def __init__(self, patient: Patient, scored: Scored, bound: float) -> None:
        self.patient, self.scored, self.bound = patient, scored, bound
        self.rows = torch.arange(min(ROWS, len(scored.answers)))
        self.answers = [scored.answers[int(row)] for row in self.rows]
        self.tokens = tokens_of(self.answers)
        width = self.tokens.response_ids.shape[1]
        self.mask = scored.mask[self.rows, :width]
        self.engine = scored.engine[self.rows, :width]
        self.own = scored.own.logp[self.rows, :width]

    def explained_by(self, other: Tensor) -> bool:
        """Whether the engine's log-probs are these [B, T] rather than the trainer's."""
        left = mean_difference(self.engine, other, self.mask)
        there = mean_difference(self.engine, self.own, self.mask)
        return there > 0 and left <= max(EXPLAINED * there, self.bound / 10)

    def own_at(self, temperature: float) -> Tensor:
        """The trainer's log-probs at another temperature."""
        policy = self.patient.policy.at(temperature)
        return terms_of(policy, self.tokens, forwards_of(self.patient)).logp


def mean_difference(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Mean |a - b| over the mask."""
    return float((a - b)[mask].abs().mean()) if bool(mask.any()) else 0.0


def cause_of(patient: Patient, scored: Scored, bound: float) -> Cause:
    """The first cause that explains the difference, in words, and what to do."""
    trial = Trial(patient, scored, bound)
    causes: tuple[Callable[[Trial], Cause | None], ...] = (
        temperature,
        truncation,
        shift,
        swapped,
        first_only,
        end_only,
        cached,
        growing,
    )
    for cause in causes:
        if (found := cause(trial)) is not None:
            return found
    return (
        "It is spread over all positions: the engine has other weights (a sync that did not "
        "arrive), or computes in another precision.",
        "Compare with rollout=hf; for an engine of your own, check its weight sync and dtype; if "
        "it is only rounding, correct it with correction=[tis].",
    )


def temperature(trial: Trial) -> Cause | None:
    """Log-probs at a temperature that is not the run's."""
    config: Any = trial.patient.engine.config
    model: Any = trial.patient.policy.model
    own = getattr(getattr(model, "generation_config", None), "temperature", None)
    for other in sorted({1.0, float(own or 1.0)} - {config.temperature}):
        if trial.explained_by(trial.own_at(other)):
            return (
                f"The engine's log-probs are those at temperature {other:g}, not at "
                f"rollout.temperature={config.temperature:g}.",
                "Let the engine report log-probs of the scaled logits (vLLM calls them processed).",
            )
    return None


def truncation(trial: Trial) -> Cause | None:
    """Log-probs of the tokens that top_p and top_k kept."""
    kept = [g.extras.get(KEPT) for _, g in trial.answers]
    if not all(isinstance(mass, Tensor) for mass in kept):
        return None
    other = trial.own.clone()
    for row, mass in enumerate(kept):
        assert isinstance(mass, Tensor)
        other[row, : len(mass)] -= mass
    if not trial.explained_by(other):
        return None
    return (
        "The engine's log-probs are normalized over the tokens that top_p and top_k keep.",
        "Let it report log-probs before truncation, or set rollout.top_p=1 and rollout.top_k=0.",
    )


def shift(trial: Trial) -> Cause | None:
    """Log-probs of the token before or behind."""
    if trial.mask.shape[1] < 2:
        return None
    for step, where in ((1, "before"), (-1, "behind")):
        inner = trial.mask.roll(step, 1) & trial.mask
        inner[:, 0 if step == 1 else -1] = False
        left = mean_difference(trial.engine, trial.own.roll(step, 1), inner)
        there = mean_difference(trial.engine, trial.own, inner)
        if there > trial.bound and left <= EXPLAINED * there:
            return (
                f"The engine's log-probs belong to the token {where} the one they come with.",
                "Mend the engine: the log-prob of a token comes from the logits before it.",
            )
    return None


def swapped(trial: Trial) -> Cause | None:
    """Responses that answer another prompt of the batch."""
    prompts = {prompt.prompt_id: prompt for prompt, _ in trial.answers}
    if len(prompts) < 2:
        return None
    ids = list(prompts)
    found = torch.full_like(trial.own, torch.inf)
    for turn in range(1, len(ids)):
        others = {a: prompts[ids[(i + turn) % len(ids)]] for i, a in enumerate(ids)}
        moved = tokens_of([(others[p.prompt_id], g) for p, g in trial.answers])
        logp = terms_of(trial.patient.policy, moved, forwards_of(trial.patient)).logp
        closer = (trial.engine - logp).abs().sum(-1) < (trial.engine - found).abs().sum(-1)
        found = torch.where(closer[:, None], logp, found)
    if not trial.explained_by(found):
        return None
    return (
        "The engine's log-probs are those of the responses under other prompts of the batch: "
        "prompts and responses are mixed up.",
        "Mend the order in which the engine returns its responses.",
    )


def first_only(trial: Trial) -> Cause | None:
    """A difference at the first token alone."""
    found = by_position(trial.scored)
    if found["first"] <= trial.bound or max(found["inner"], found["end"]) > trial.bound:
        return None
    return (
        "Only the first tokens differ: the engine reads another end of the prompt (a token added "
        "or left out by its own tokenizer or chat template), or treats the first token apart.",
        "Send the engine token ids, not text, and check the beginning-of-sequence token and the "
        "template.",
    )


def end_only(trial: Trial) -> Cause | None:
    """A difference at the tokens that end a response alone."""
    found = by_position(trial.scored)
    if found["end"] <= trial.bound or max(found["inner"], found["first"]) > trial.bound:
        return None
    return (
        "Only the tokens that end a response differ: the engine suppresses or forces them, or "
        "reports nothing for them.",
        "Look for min_tokens, ignore_eos or a logits processor in the engine, and let it return "
        "the end token with its log-prob.",
    )


def cached(trial: Trial) -> Cause | None:
    """A difference for prompts asked a second time alone."""
    if worst_of(trial.scored.difference.abs()[trial.scored.mask]) > trial.bound:
        return None
    return (
        "Only prompts asked a second time differ: the engine's prefix cache does not hold what "
        "the prompt gives.",
        "Empty the prefix cache at each weight sync, or switch it off.",
    )


def growing(trial: Trial) -> Cause | None:
    """A difference that grows with the position."""
    found = by_position(trial.scored)
    if found["late"] <= GROWS * max(found["early"], trial.bound / 100):
        return None
    return (
        f"It grows along a response, from {found['early']:.2g} nats in the first quarter to "
        f"{found['late']:.2g} in the last: positions (rope, position ids, a sliding window) or the "
        "key-value cache differ.",
        "Compare the rope settings, the window and the cache's dtype of engine and trainer.",
    )
