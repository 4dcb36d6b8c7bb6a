"""Single-stream policy optimization, SPO (arXiv:2509.13232): a running value for each prompt.

One response per prompt needs a baseline from elsewhere. SPO keeps a Beta distribution of each
prompt's success, forgets as far as the policy has moved since the prompt was last asked, and
normalizes over the whole batch:

    A = (d - mean d) / (std d + eps),   d = R - alpha / (alpha + beta)
    alpha <- rho alpha + R,   beta <- rho beta + 1 - R              after the advantages
    rho = clip(2^(-D / half_life), rho_min, rho_max),   D = mean_t |log pi_now - log pi_then|

D is over the response that the prompt got at its last visit; one forward per prompt finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field

from algorithms.advantages.outcome import outcome, standardized
from rlkit.batch import AdvantageBatch, AdvantageOutput, Group, Sample, Score
from rlkit.interfaces import (
    PROMPT_IDS,
    AdvantageEstimator,
    PartConfig,
    Scoring,
    State,
    asked_ids,
)
from rlkit.registry import register

Share = Annotated[float, Field(ge=0, le=1)]


class SpoConfig(PartConfig):
    """Settings of the running value."""

    half_life: Annotated[float, Field(gt=0)] = 0.06
    """The drift D at which half of what is known of a prompt is forgotten, nats per token."""
    rho_min: Share = 0.875
    """What is kept at least."""
    rho_max: Share = 0.96
    """What is kept at most, also at the first visit."""
    prior: Annotated[float, Field(gt=0)] = 0.5
    """alpha and beta of a prompt that was never asked."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the standard deviation."""


def kept(moved: float, c: SpoConfig) -> float:
    """rho, from the drift D."""
    return float(min(max(2 ** (-moved / c.half_life), c.rho_min), c.rho_max))


def drift(sample: Sample, score: Score) -> float:
    """D of a kept response, whose present log-probs are known."""
    moved = (score.logp - sample.behavior_logp)[sample.loss_mask]
    return float(moved.abs().mean())


def remembered(name: str, number: int, tokens: State) -> Sample:
    """A response to a prompt as it is kept and saved.

    Its tokens, valid or not, the log-probs [T] of the policy of that step, and what was asked.
    """
    return Sample(
        sample_id=number,
        prompt_id=name,
        response_ids=tokens["response"],
        loss_mask=tokens["mask"],
        behavior_logp=tokens["logp"],
        policy_version=torch.zeros(0, dtype=torch.int32),
        reward=0.0,
        rewards={},
        finish_reason="stop",
        step=0,
        extras={PROMPT_IDS: tokens["asked"]},
    )


@register("advantage", "spo")
class SPO(AdvantageEstimator[SpoConfig]):
    """A = R - alpha / (alpha + beta) of the prompt's running success, normalized over the batch.

    Rewards between 0 and 1 are counted, others as the nearest of the two. Only new responses of
    the policy are counted, all of a prompt's together; replayed ones and demonstrations only get
    an advantage. Status: exact with one response per prompt, but for prompts sampled by
    sqrt(p (1 - p)) + 0.05 and values from an evaluation before training, which are not offered.

    Public code: agrees with verl's recipe (spo, rho.type=kl, offline_N=0), which lets the last of
    several responses to a prompt count alone.
    """

    sources = ("2509.13232",)
    needs = frozenset({"prox"})

    def __init__(self, config: SpoConfig | None = None) -> None:
        super().__init__(config)
        self.counts: dict[str, tuple[float, float]] = {}
        """alpha and beta of each prompt."""
        self.last: dict[str, Sample] = {}
        """Its last own response."""
        self.groups: Sequence[Group] = ()
        """Those of the batch to come."""
        self.drifts: dict[str, float] = {}
        """D of its prompts that were asked before."""

    def begin(self, groups: Sequence[Group], score: Scoring) -> None:
        """Find how far the policy has moved since each prompt was last asked."""
        self.groups = groups
        prompts = {group.prompt.prompt_id: group.prompt for group in groups}
        asked = [name for name in prompts if name in self.last]
        known = [self.last[name] for name in asked]
        scores = score(known, [prompts[name] for name in asked]) if known else {}
        self.drifts = {s.prompt_id: drift(s, scores[s.sample_id]) for s in known}

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards. Counts what `begin` has announced."""
        names = [group.prompt.prompt_id for group in self.groups]
        first = (self.config.prior, self.config.prior)
        counts = [self.counts.get(name, first) for name in names]
        found = [counts[n] if n < len(counts) else first for n in b.group.tolist()]
        values = b.reward.new_tensor([alpha / (alpha + beta) for alpha, beta in found])
        metrics = {"advantage/prompt_value": float(values.mean())}
        if self.drifts:
            metrics["advantage/drift"] = sum(self.drifts.values()) / len(self.drifts)
        for number, group in enumerate(self.groups):
            self._count(b, number, group, counts[number])
        self.groups, self.drifts = (), {}
        return outcome(standardized(b.reward - values, self.config.eps), b, metrics)

    def _count(
        self, b: AdvantageBatch, number: int, group: Group, before: tuple[float, float]
    ) -> None:
        """Take in a group's new responses; `before` are its alpha and beta."""
        rows = (b.group == number).nonzero().squeeze(-1)
        live = [sample for sample in group.samples if sample.loss_mask.any()]
        new = (~b.expert & ~b.replayed)[rows].nonzero().squeeze(-1).tolist()
        if not new or not live:
            return
        name, sample, row = group.prompt.prompt_id, live[new[-1]], rows[new[-1]]
        rho = kept(self.drifts.get(name, 0.0), self.config)
        rewards = b.reward[rows[new]].double().clamp(0, 1)
        alpha, beta = before
        self.counts[name] = (
            rho * alpha + float(rewards.sum()),
            rho * beta + float((1 - rewards).sum()),
        )
        tokens = {
            "response": sample.response_ids,
            "mask": sample.loss_mask,
            "logp": b.prox_logp[row, : len(sample.response_ids)].float().cpu().clone(),
            "asked": asked_ids(group.prompt, sample),
        }
        self.last[name] = remembered(name, sample.sample_id, tokens)

    def state_dict(self) -> State:
        """What is known of each prompt."""
        return {
            name: {
                "counts": list(counts),
                "number": self.last[name].sample_id,
                "asked": self.last[name].extras[PROMPT_IDS],
                "response": self.last[name].response_ids,
                "mask": self.last[name].loss_mask,
                "logp": self.last[name].behavior_logp,
            }
            for name, counts in self.counts.items()
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.counts, self.last = {}, {}
        for name, found in state.items():
            alpha, beta = found["counts"]
            self.counts[name] = (alpha, beta)
            self.last[name] = remembered(name, found["number"], found)
