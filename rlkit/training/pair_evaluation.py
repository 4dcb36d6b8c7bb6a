"""Whether the policy ranks held-out preferences as they are: an evaluation without generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.batch import Group, Prompt, Sample
from rlkit.evaluation.evaluator import Progress, silent
from rlkit.models.policy import Policy
from rlkit.ops import sequence_sum
from rlkit.rollout.base import EVALUATION
from rlkit.training.cached import CachedLogprobs
from rlkit.training.collate import collate
from rlkit.training.micro_batches import Forwards
from rlkit.training.references import Parts

ANCHOR = "anchor:"
ROUNDING = 1e-5
"""Most that the log-prob of a token may differ between two copies of the same weights."""


def preference(prompt: Prompt, answers: Sequence[Sequence[int]]) -> Group:
    """A held-out prompt with the token ids of its chosen and its rejected response."""
    return Group(prompt=prompt, samples=[_sample(prompt, ids) for ids in answers])


def _sample(prompt: Prompt, ids: Sequence[int]) -> Sample:
    return Sample(
        sample_id=0,
        prompt_id=prompt.prompt_id,
        response_ids=torch.tensor(ids, dtype=torch.int64),
        loss_mask=torch.ones(len(ids), dtype=torch.bool),
        behavior_logp=torch.zeros(len(ids)),
        policy_version=torch.zeros(len(ids), dtype=torch.int32),
        reward=0.0,
        rewards={},
        finish_reason="stop",
        step=0,
    )


def share_above(margin: Tensor, tokens: Tensor) -> float:
    """The share of margins above 0; one of no more than rounding of its tokens counts half."""
    settled = torch.where(margin.abs() > ROUNDING * tokens, margin.sign(), 0.0)
    return float(((settled + 1) / 2).mean())


@dataclass(frozen=True, kw_only=True)
class PairEvaluator:
    """Ranks held-out pairs by log-prob, and by log-ratio to the reference that the loss reads."""

    groups: Sequence[Group]
    """The chosen and the rejected response to each prompt."""
    policy: Policy
    parts: Parts
    forwards: Forwards
    alone: bool
    """Whether no other evaluation of the task runs, so that its accuracy is the run's score."""

    def run(self, step: int, progress: Progress = silent) -> dict[str, float]:
        """The metrics of an evaluation after a step.

        `pairs/accuracy` is the share of pairs whose chosen response has the higher log-ratio (half
        of them before training), `pairs/margin` the mean difference, `pairs/chosen` and `/rejected`
        the mean log-ratios; `pairs/logp_accuracy` is the share by log-prob alone.
        """
        progress("ranking preferences", 0, len(self.groups))
        rows = collate(self.groups, 0)
        mask, every = rows.batch.mask, torch.arange(len(rows.samples))
        logp = self.forwards.by_rows(self.policy.logp, rows.tokens, every)
        score = sequence_sum(logp.double(), mask).view(-1, 2)
        tokens = mask.sum(-1).view(-1, 2).sum(-1)
        out = {"pairs/logp_accuracy": share_above(score[:, 0] - score[:, 1], tokens)}
        if (name := self.reference) is not None:
            anchor = self.parts.anchor
            reference = anchor.reference(name)
            assert reference is not None, "see `reference`"
            cached = CachedLogprobs(name, anchor.number(name))
            base = cached.logp(reference, rows.samples, rows.tokens, self.forwards)
            ratio = score - sequence_sum(base.double(), mask).view(-1, 2)
            margin = ratio[:, 0] - ratio[:, 1]
            out |= {
                "pairs/accuracy": share_above(margin, tokens),
                "pairs/margin": float(margin.mean()),
                "pairs/chosen": float(ratio[:, 0].mean()),
                "pairs/rejected": float(ratio[:, 1].mean()),
            }
        progress("ranking preferences", len(self.groups), len(self.groups))
        if self.alone:
            out["pass@1"] = out.get("pairs/accuracy", out["pairs/logp_accuracy"])
        return {f"{EVALUATION}/{name}": value for name, value in out.items()}

    @property
    def reference(self) -> str | None:
        """The reference of the implicit reward: the one the loss reads, unless that is pi_k."""
        needs = [need for need in self.parts.loss.needs if need.startswith(ANCHOR)]
        names = [need.removeprefix(ANCHOR) for need in needs]
        if len(names) != 1 or self.parts.anchor.reference(names[0]) is None:
            return None
        return names[0]
