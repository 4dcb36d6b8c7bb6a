"""The learning rate of an optimizer step, by how many of its responses still weigh (VCPO)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import Processes
from rlkit.ops import effective_sample_size, masked_log_ratio, sequence_sum


class EssRate:
    """A step's learning rate times sqrt(min(1, rho / base)) in each of its optimizer steps.

    rho = (sum w)^2 / (B sum w^2) in (0, 1] is the effective sample size of the B responses of a
    minibatch, over all ranks, w = exp(sum_t log pi - log mu) the ratio of a whole response, not
    clipped. Demonstrations and responses without a valid token are not among the B; a minibatch of
    nothing else has rho 1. `base` None = rho is not computed and the rate stays as it is. Source:
    VCPO (arXiv:2602.17616).
    """

    def __init__(self, base: float | None, processes: Processes) -> None:
        self.base, self.processes = base, processes
        self.taken: list[tuple[float, float]] = []
        """rho and the factor of the optimizer steps so far."""

    def ess(
        self, batch: LossBatch, rows: Tensor, terms: Sequence[tuple[Tensor, PolicyTerms]]
    ) -> float:
        """rho of the minibatch at `rows` of a batch; `terms` are those of this rank's part of it.

        Every rank must call it. Not finite if a log-prob is not.
        """
        if self.base is None:
            return 1.0
        minibatch = batch.rows(rows)
        own = sequence_log_ratios(minibatch, terms)
        known = minibatch.mask.any(-1) & ~minibatch.expert
        return float(effective_sample_size(self.processes.all_reduce(own), known))

    @contextmanager
    def applied(self, ess: float, *learners: Learner | None) -> Generator[None]:
        """Every group of the learners has its rate times this rho's factor inside the context."""
        factor = 1.0 if self.base is None else min(1.0, ess / self.base) ** 0.5
        self.taken.append((ess, factor))
        found = [learner.optimizer for learner in learners if learner is not None]
        groups = [group for optimizer in found for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def metrics(self) -> dict[str, float]:
        """Means over the optimizer steps that were taken, if the rate follows rho."""
        if self.base is None or not self.taken:
            return {}
        ess, factor = torch.tensor(self.taken, dtype=torch.float64).mean(0).tolist()
        return {"off_policy/sequence_ess": ess, "policy/lr_ess_factor": factor}


def sequence_log_ratios(batch: LossBatch, terms: Sequence[tuple[Tensor, PolicyTerms]]) -> Tensor:
    """sum_t log pi - log mu of each response [B], float64 on the CPU; 0 for rows without terms."""
    out = torch.zeros(len(batch.mask), dtype=torch.float64)
    found = []
    for rows, policy in terms:
        logp = policy.logp.double()
        mask, behavior = (x[rows].to(logp.device) for x in (batch.mask, batch.behavior_logp))
        found.append(sequence_sum(masked_log_ratio(logp, behavior, mask), mask))
    if found:
        out[torch.cat([rows for rows, _ in terms])] = torch.cat(found).cpu()  # one wait for all
    return out
