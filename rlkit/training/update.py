"""The updates of a step.

Passes, minibatches, micro-batches, optimiser steps of the policy and the critic.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlkit.batch import PolicyTerms, Score
from rlkit.config.run import RunConfig, TrainConfig
from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import ALONE, Processes
from rlkit.interfaces import State
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.models.tokens import EntropyMode
from rlkit.ops import effective_sample_size, kl_value, masked_mean, stream_rng
from rlkit.training.micro_batches import MicroBatches, micro_batches
from rlkit.training.objective import MetricSums, Objective
from rlkit.training.prepare import TrainBatch, explained_variance
from rlkit.training.references import Parts


def learning_rate_factor(step: int, train: TrainConfig) -> float:
    """The share of the peak learning rate at a training step (1-based).

    step / warmup_steps up to warmup_steps; then constant, or falling along a line or half a cosine
    from 1 in the first step after the warm-up towards 0, which the step after the last one would
    reach.
    """
    if step <= train.warmup_steps:
        return step / train.warmup_steps
    progress = (step - train.warmup_steps - 1) / max(1, train.steps - train.warmup_steps)
    if train.lr_scheduler_type == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress)) if train.lr_scheduler_type == "cosine" else 1.0


class Updater:
    """Owns the optimisers and takes a prepared batch to a better policy."""

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        parts: Parts,
        max_completion_length: int,
        processes: Processes = ALONE,
    ) -> None:
        self.seed = config.seed
        self.config = config.train
        self.policy = policy
        self.parts = parts
        self.processes = processes
        self.critic = (
            Critic(policy.model, policy.autocast) if parts.advantage.needs_critic else None
        )
        self.trained_critic = processes.wrap(self.critic) if self.critic is not None else None
        self.micro = MicroBatches(config.train.micro_batch_tokens, halves=processes.count == 1)
        self.skipped_in_a_row = 0
        self.offending: list[int] = []
        """Rows of this step's batch whose minibatch gave no finite loss or gradient."""
        self.objective = Objective(
            parts.loss,
            parts.corrections,
            parts.anchor,
            max_completion_length=max_completion_length,
            processes=processes,
        )
        self.reset()

    def reset(self) -> None:
        """Fresh optimisers: no moments."""
        c, policy = self.config, self.policy
        self.learner = self._learner(policy.model, policy.trained, c.learning_rate)
        policy.trained, self.objective.learner = self.learner.trained, self.learner
        self.critic_learner = (
            self._learner(self.critic, self.trained_critic, c.critic_learning_rate)
            if self.critic is not None and self.trained_critic is not None
            else None
        )

    def run(
        self, batch: TrainBatch, passes: int, step: int
    ) -> tuple[dict[str, float], dict[int, Score]]:
        """All passes over the batch.

        Returns metrics, and what the policy said of each sample in the first pass.
        """
        self._set_learning_rate(step)
        self.objective.step, self.objective.metrics = step, MetricSums()
        self.offending = []
        seen = (torch.zeros_like(batch.values), torch.zeros_like(batch.values))
        steps: list[tuple[float, float]] = []
        critic = MetricSums()
        updates = ((n, rows) for n in range(passes) for rows in self._minibatches(batch, step, n))
        skipped = 0
        for number, rows in updates:
            done = self._policy_step(batch, rows, seen if number == 0 else None)
            if done is not None:
                steps.append(done)
            else:
                skipped += 1
                self.offending += rows.tolist()
            if self.is_stuck:
                break
            if self.critic is not None:
                self._critic_step(batch, rows, critic)
        seen = (self.processes.sum(seen[0]), self.processes.sum(seen[1]))
        mask, behavior = batch.loss.mask, batch.loss.behavior_logp
        known = mask & ~batch.loss.expert[:, None]
        metrics = {
            **self.objective.metrics.over(self.processes).means(),
            **means_of(steps),
            "policy/skipped_steps": skipped,
            "memory/micro_batch_tokens": self.micro.tokens,
            "policy/lr": self.learner.optimizer.param_groups[0]["lr"],
            "policy/entropy": float(masked_mean(seen[1], mask)),
            "off_policy/ess": float(
                effective_sample_size((seen[0] - behavior).clamp(-20, 20), known)
            ),
            "off_policy/kl": float(masked_mean(kl_value(behavior, seen[0], known, "k3"), known)),
        }
        if self.critic is not None:
            metrics |= {f"critic/{k}": v for k, v in critic.over(self.processes).means().items()}
            metrics["critic/explained_variance"] = explained_variance(
                batch.values, batch.returns, mask
            )
        scores = scores_of(batch, *seen)
        for row in self.offending:
            scores.pop(batch.samples[row].sample_id, None)
        return metrics, scores

    @property
    def is_stuck(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.skipped_in_a_row >= self.config.max_skipped_steps

    def state_dict(self) -> State:
        """Optimisers and critic, and what was learned of the memory."""
        state: State = {
            "optimizer": self.learner.state_dict(kept=self.processes.is_first),
            "skipped_in_a_row": self.skipped_in_a_row,
            "halvings": self.micro.halvings,
        }
        if self.critic is not None and self.critic_learner is not None:
            state["critic"] = dict(self.critic.state_dict())
            state["critic_optimizer"] = self.critic_learner.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.learner.load_state_dict(state["optimizer"])
        self.skipped_in_a_row, self.micro.halvings = state["skipped_in_a_row"], state["halvings"]
        self.micro.tokens = max(1, self.micro.tokens // 2**self.micro.halvings)
        if self.critic is not None and self.critic_learner is not None:
            self.critic.load_state_dict(state["critic"])
            self.critic_learner.load_state_dict(state["critic_optimizer"])

    def _learner(
        self, module: torch.nn.Module, trained: torch.nn.Module, learning_rate: float
    ) -> Learner:
        train = self.config
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=learning_rate,
            betas=(train.adam_beta1, train.adam_beta2),
            weight_decay=train.weight_decay,
        )
        return self.processes.learner(module, trained, optimizer)

    def _set_learning_rate(self, step: int) -> None:
        factor = learning_rate_factor(step, self.config)
        for learner, peak in (
            (self.learner, self.config.learning_rate),
            (self.critic_learner, self.config.critic_learning_rate),
        ):
            for group in learner.optimizer.param_groups if learner is not None else ():
                group["lr"] = peak * factor

    def _minibatches(self, batch: TrainBatch, step: int, number: int) -> Iterator[Tensor]:
        """Rows of whole groups, shuffled; the minibatches differ by at most one group."""
        shuffle = stream_rng(self.seed, "minibatch", step, number).permutation(batch.groups)
        for groups in torch.tensor_split(
            torch.from_numpy(shuffle), min(self.config.minibatches, batch.groups)
        ):
            yield torch.isin(batch.loss.group, groups).nonzero().squeeze(-1)

    def _policy_step(
        self, batch: TrainBatch, rows: Tensor, seen: Sequence[Tensor] | None
    ) -> tuple[float, float] | None:
        """One optimiser step on a minibatch: its loss and gradient norm; None if it was skipped."""
        mode: EntropyMode = "value" if seen is not None else "none"
        mode = "gradient" if self.parts.needs("entropy") else mode
        length = batch.values.shape[1]

        def forward(part: Tensor) -> PolicyTerms:
            chosen = rows[part]
            terms = self.policy.terms(batch.tokens.rows(chosen if len(part) else rows[:1]), mode)
            width = terms.logp.shape[1]
            terms = PolicyTerms(logp=terms.logp[: len(part)], entropy=terms.entropy[: len(part)])
            if seen is not None:
                seen[0][chosen, :width] = terms.logp.detach().cpu()
                seen[1][chosen, :width] = terms.entropy.detach().cpu()
            wider = (0, length - width)
            return PolicyTerms(
                logp=torch.nn.functional.pad(terms.logp, wider),
                entropy=torch.nn.functional.pad(terms.entropy, wider),
            )

        minibatch = batch.loss.rows(rows).to(self.policy.device)
        before = copy.deepcopy(self.objective.metrics)

        def backward(tokens: int) -> float:
            self.learner.drop()
            self.objective.metrics = copy.deepcopy(before)
            splits = micro_batches(batch.tokens.lengths[rows], tokens, self.processes)
            return self.objective.backward(forward, minibatch, splits)

        value = self.micro.run(backward)
        norm = self.learner.clip(self.config.max_grad_norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.learner.drop()
            self.objective.metrics = before
            self.skipped_in_a_row += 1
            return None
        self.skipped_in_a_row = 0
        self.learner.step()
        return value, norm

    def _critic_step(self, batch: TrainBatch, rows: Tensor, sums: MetricSums) -> None:
        """One optimiser step of the critic on the mean of its loss over the minibatch's tokens."""
        assert self.critic_learner is not None
        learner = self.critic_learner
        valid = batch.loss.mask[rows].sum()

        def backward(tokens: int) -> MetricSums:
            learner.drop()
            found = copy.deepcopy(sums)
            splits = micro_batches(batch.tokens.lengths[rows], tokens, self.processes)
            for number, part in enumerate(splits, start=1):
                with learner.accumulate(last=number == len(splits)):
                    chosen = rows[part]
                    values = learner.trained(batch.tokens.rows(chosen if len(part) else rows[:1]))
                    values = values[: len(part)]
                    old, returns, mask = (
                        x[chosen, : values.shape[1]].to(values.device)
                        for x in (batch.values, batch.returns, batch.loss.mask)
                    )
                    loss, clipped = self.parts.advantage.value_loss(values, old, returns)
                    share = torch.where(mask, loss, 0.0).sum() / valid.to(values.device)
                    learner.backward(share)
                found.add({"loss": loss.detach(), "clip_fraction": clipped.detach()}, mask)
            return found

        found = self.micro.run(backward)
        if not math.isfinite(learner.clip(self.config.max_grad_norm)):
            learner.drop()
            return
        sums.sums, sums.counts = found.sums, found.counts
        learner.step()


def means_of(steps: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The mean loss and gradient norm of the optimiser steps that were taken, if any."""
    if not steps:
        return {}
    return {
        "policy/loss": sum(loss for loss, _ in steps) / len(steps),
        "policy/grad_norm": sum(norm for _, norm in steps) / len(steps),
    }


def scores_of(batch: TrainBatch, logp: Tensor, entropy: Tensor) -> dict[int, Score]:
    """What a buffer learns of each trained sample, from [B, T] log-probs and entropies."""
    return {
        sample.sample_id: Score(
            logp=logp[i, : len(sample.response_ids)],
            entropy=float(masked_mean(entropy[i], batch.loss.mask[i])),
            advantage=float(masked_mean(batch.loss.advantage[i], batch.loss.mask[i])),
        )
        for i, sample in enumerate(batch.samples)
    }
