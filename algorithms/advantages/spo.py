"""Single-stream policy optimization, SPO (arXiv:2509.13232): a running value for each prompt.

One response per prompt needs a baseline from elsewhere. SPO keeps a Beta distribution of each
prompt's success, forgets as far as the policy has moved since the prompt was last asked, and
normalizes over the whole batch:

    A = (d - mean d) / (std d + eps),   d = R - alpha / (alpha + beta)
    alpha <- rho alpha + R,   beta <- rho beta + 1 - R              after the advantages
    rho = clip(2^(-D / half_life), rho_min, rho_max),   D = mean_t |log pi_now - log pi_then|

D is over the response that the prompt got at its last visit; one forward per prompt finds it,
before the updates of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.advantages.outcome import outcome, standardized
from rlkit.batch import AdvantageBatch, AdvantageOutput, Group, Prompt, Sample, Score
from rlkit.interfaces import PROMPT_IDS, AdvantageEstimator, PartConfig, Scoring, State
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
    capacity: Annotated[int, Field(ge=1)] = 100_000
    """Most prompts that are remembered, each with its last response (about 9 bytes per token); the
    one whose last visit is the oldest is forgotten first."""


New = tuple[int, Sample]
"""A new response of the policy, with its row in the batch."""


def kept(moved: float, c: SpoConfig) -> float:
    """rho, from the drift D."""
    return float(min(max(2 ** (-moved / c.half_life), c.rho_min), c.rho_max))


def drift(sample: Sample, score: Score) -> float:
    """D of a kept response, whose present log-probs are known."""
    moved = (score.logp - sample.behavior_logp)[sample.loss_mask]
    return float(moved.abs().mean())


def remembered(name: str, number: int, tokens: State) -> Sample:
    """A response to a prompt as it is kept and saved, its ids in 32 bits.

    Its tokens, valid or not, the log-probs [T] of the policy of that step, and what was asked, if
    that is not the prompt alone.
    """
    asked = tokens.get("asked")
    return Sample(
        sample_id=number,
        prompt_id=name,
        response_ids=tokens["response"].int(),
        loss_mask=tokens["mask"],
        behavior_logp=tokens["logp"],
        policy_version=torch.zeros(0, dtype=torch.int32),
        reward=0.0,
        rewards={},
        finish_reason="stop",
        step=0,
        extras={} if asked is None else {PROMPT_IDS: torch.as_tensor(asked).int()},
    )


def to_score(sample: Sample) -> Sample:
    """A kept response as the policy scores it, its ids in 64 bits."""
    return replace(sample, response_ids=sample.response_ids.long())


@register("advantage", "spo")
class SPO(AdvantageEstimator[SpoConfig]):
    """A = R - alpha / (alpha + beta) of the prompt's running success, normalized over the batch.

    Rewards between 0 and 1 are counted, others as the nearest of the two, and without an in-reward
    KL penalty, which is in A alone. Only new responses of the policy are counted, all of a prompt's
    together, in one group or several; replayed ones and demonstrations only get an advantage.
    Status: exact with one response per prompt, but for prompts sampled by sqrt(p (1 - p)) + 0.05
    and values from an evaluation before training, which are not offered.

    Public code: agrees with verl's recipe (spo, rho.type=kl, offline_N=0), which lets the last of
    several responses to a prompt count alone and measures D after the update of the step.
    """

    sources = ("2509.13232",)
    needs = frozenset({"prox"})
    prox_is_own = True

    def __init__(self, config: SpoConfig | None = None) -> None:
        super().__init__(config)
        self.counts: dict[str, tuple[float, float]] = {}
        """alpha and beta of each prompt, the one of the oldest last visit first."""
        self.last: dict[str, Sample] = {}
        """Its last own response."""
        self.groups: Sequence[Group] = ()
        """Those of the batch to come."""
        self.score: Scoring | None = None
        """What scores kept responses then."""

    def begin(self, groups: Sequence[Group], score: Scoring) -> None:
        """Note the prompts of the batch to come."""
        self.groups, self.score = groups, score

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards. Counts what `begin` has announced."""
        names = [group.prompt.prompt_id for group in self.groups]
        first = (self.config.prior, self.config.prior)
        counts = [self.counts.get(name, first) for name in names]
        found = [counts[n] if n < len(counts) else first for n in b.group.tolist()]
        values = b.reward.new_tensor([alpha / (alpha + beta) for alpha, beta in found])
        metrics = {"advantage/prompt_value": float(values.mean())}
        new = self._new(b)
        drifts = self._drifts(new)
        if drifts:
            metrics["advantage/drift"] = sum(drifts.values()) / len(drifts)
        for name, responses in new.items():
            self._count(name, responses, drifts.get(name, 0.0), b.prox_logp)
        for name in list(self.counts)[: max(0, len(self.counts) - self.config.capacity)]:
            del self.counts[name], self.last[name]
        self.groups, self.score = (), None
        return outcome(standardized(b.reward - values, self.config.eps), b, metrics)

    def _new(self, b: AdvantageBatch) -> dict[str, list[New]]:
        """The responses that are counted, by prompt."""
        counted = (~b.expert & ~b.replayed & b.mask.any(-1)).tolist()
        found: dict[str, list[New]] = {}
        for number, group in enumerate(self.groups):
            rows = (b.group == number).nonzero().squeeze(-1).tolist()
            live = [sample for sample in group.samples if sample.loss_mask.any()]
            new = [pair for pair in zip(rows, live, strict=False) if counted[pair[0]]]
            if new:
                found.setdefault(group.prompt.prompt_id, []).extend(new)
        return found

    def _drifts(self, new: Mapping[str, list[New]]) -> dict[str, float]:
        """How far the policy has moved since each of these prompts was last asked, if it was."""
        prompts: dict[str, Prompt] = {g.prompt.prompt_id: g.prompt for g in self.groups}
        known = [to_score(self.last[name]) for name in new if name in self.last]
        if not known or self.score is None:
            return {}
        scores = self.score(known, [prompts[sample.prompt_id] for sample in known])
        return {s.prompt_id: drift(s, scores[s.sample_id]) for s in known}

    def _count(self, name: str, new: Sequence[New], moved: float, prox_logp: Tensor) -> None:
        """Take in a prompt's new responses; it is now the one visited last."""
        rho, right = kept(moved, self.config), [min(max(s.reward, 0.0), 1.0) for _, s in new]
        alpha, beta = self.counts.pop(name, (self.config.prior, self.config.prior))
        self.counts[name] = (rho * alpha + sum(right), rho * beta + len(right) - sum(right))
        row, sample = new[-1]
        tokens = {
            "response": sample.response_ids,
            "mask": sample.loss_mask,
            "logp": prox_logp[row, : len(sample.response_ids)].float().cpu().clone(),
            "asked": sample.extras.get(PROMPT_IDS),
        }
        self.last[name] = remembered(name, sample.sample_id, tokens)

    def state_dict(self) -> State:
        """What is known of each prompt, in the order of their last visits."""
        found: State = {}
        for name, counts in self.counts.items():
            last = self.last[name]
            found[name] = {
                "counts": list(counts),
                "number": last.sample_id,
                "response": last.response_ids,
                "mask": last.loss_mask,
                "logp": last.behavior_logp,
            }
            if PROMPT_IDS in last.extras:
                found[name]["asked"] = last.extras[PROMPT_IDS]
        return found

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.counts, self.last = {}, {}
        for name, found in state.items():
            alpha, beta = found["counts"]
            self.counts[name] = (alpha, beta)
            self.last[name] = remembered(name, found["number"], found)
