"""The updates of a critic: the value function that an advantage estimator needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlkit.distributed.learner import Learner
from rlkit.interfaces import AdvantageEstimator, State
from rlkit.models.critic import Critic
from rlkit.models.memory import OPTIMIZER, explained
from rlkit.models.policy import Policy
from rlkit.training.metrics import explained_variance
from rlkit.training.micro_batches import MicroBatches, some_rows
from rlkit.training.prepare import TrainBatch
from rlkit.training.sums import MetricSums, Sums, sums_of


def critic_of(policy: Policy, advantage: AdvantageEstimator) -> Critic | None:
    """A new critic on the policy's backbone, if the advantage needs one."""
    if not advantage.needs_critic:
        return None
    aged = advantage.critic_sees_age
    return Critic(policy.model, policy.autocast, policy.layout, sees_age=aged)


class CriticUpdate:
    """A critic and its optimizer, one step for each minibatch of the policy's."""

    def __init__(
        self,
        critic: Critic,
        learner: Learner,
        advantage: AdvantageEstimator,
        micro: MicroBatches,
    ) -> None:
        self.critic, self.learner, self.advantage, self.micro = critic, learner, advantage, micro
        self.sums = MetricSums()
        self.skipped = 0
        """Optimizer steps of this training step whose gradient was not finite."""

    def step(self, batch: TrainBatch, rows: Tensor, max_grad_norm: float) -> None:
        """One optimizer step on the mean of the critic's loss over the tokens of these rows."""
        learner, tokens = self.learner, batch.tokens.rows(rows)

        def backward(budget: int) -> Sums:
            learner.zero_grad()
            found: list[tuple[str, Tensor | float, float]] = []
            splits = self.micro.split(tokens, budget)
            for number, part in enumerate(splits, start=1):
                last = number == len(splits)
                with learner.accumulate(last=last):
                    values = learner.wrapped(some_rows(tokens, part))[: len(part)]
                    found += self._backward(values, batch, rows, part, last=last)
            return found

        found = self.micro.run(backward, int(tokens.lengths.max()))
        if not math.isfinite(learner.clip(max_grad_norm)):
            learner.zero_grad()
            self.skipped += 1
            return
        with explained(OPTIMIZER):
            learner.step()
        self.sums.plus(found)

    def _backward(
        self, values: Tensor, batch: TrainBatch, rows: Tensor, part: Tensor, *, last: bool
    ) -> Sums:
        """Back-propagate a micro-batch's share of the loss."""
        chosen, width = rows[part], values.shape[1]
        before, returns, mask = (
            x[chosen, :width].to(values.device)
            for x in (batch.values, batch.returns, batch.loss.mask)
        )
        loss, clipped = self.advantage.value_loss(values, before, returns)
        valid = batch.loss.mask[rows].sum().clamp(min=1).to(values.device)
        if last:
            self.micro.agree(last=True)
        self.learner.backward(torch.where(mask, loss, 0.0).sum() / valid)
        return sums_of({"loss": loss, "clip_fraction": clipped}, batch.loss.mask[chosen][:, :width])

    def metrics(self, batch: TrainBatch) -> dict[str, float]:
        """What a step's updates gave."""
        sums, self.sums = self.sums.over(self.micro.processes), MetricSums()
        out = {f"critic/{name}": value for name, value in sums.means().items()}
        out["critic/skipped_steps"], self.skipped = float(self.skipped), 0
        fit = explained_variance(batch.values, batch.returns, batch.loss.mask)
        return out | {"critic/explained_variance": fit}

    def state_dict(self) -> State:
        """The critic's weights and its optimizer."""
        weights = dict(self.critic.state_dict())
        return {"critic": weights, "critic_optimizer": self.learner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.critic.load_state_dict(state["critic"])
        self.learner.load_state_dict(state["critic_optimizer"])
