"""The updates of a step.

Passes, minibatches, micro-batches, optimizer steps of the policy and the critic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from rlkit.batch import PolicyTerms, Score
from rlkit.config.run import RunConfig
from rlkit.distributed.learner import Learner
from rlkit.interfaces import State
from rlkit.models.logits import EntropyMode
from rlkit.models.memory import OPTIMIZER, explained
from rlkit.models.policy import Policy
from rlkit.ops import sequence_mean, stream_rng, stream_seed
from rlkit.training.critic_update import CriticUpdate, critic_of
from rlkit.training.loss_head import LossHead
from rlkit.training.lr_ess import EssRate
from rlkit.training.metrics import first_pass_metrics, mean_steps
from rlkit.training.micro_batches import Forwards, MicroBatches, default_tokens, some_rows
from rlkit.training.objective import MinibatchResult, Objective
from rlkit.training.optimizers import check_patterns, make_optimizer, set_rate
from rlkit.training.prepare import TrainBatch
from rlkit.training.references import Parts
from rlkit.training.sums import MetricSums
from rlkit.training.token_records import Seen, TokenRecorder, rows_of_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """The results of a step's updates, besides the new weights."""

    metrics: Mapping[str, float]
    scores: Mapping[int, Score]
    """The policy's scores of each sample in the first pass, by sample_id."""
    skipped_rows: Sequence[int]
    """Rows of the batch whose minibatch gave no finite loss or gradient."""
    seen: Seen | None
    """What the loss saw of the tokens that were recorded."""


class Updater:
    """Owns the optimizers and updates the policy on a prepared batch."""

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        parts: Parts,
        max_completion_length: int,
        previous: Learner | None = None,
    ) -> None:
        self.seed, self.config = config.seed, config.train
        self.policy, self.parts, self.processes = policy, parts, policy.processes
        tokens = config.train.micro_batch_tokens or default_tokens(policy.device)
        self.micro = MicroBatches(tokens, self.processes, policy.layout)
        self.objective = Objective(
            parts.loss,
            parts.corrections,
            parts.anchor,
            max_completion_length=max_completion_length,
            processes=self.processes,
            device=policy.device,
            agree=self.micro.agree,
        )
        self.forwards = Forwards(self.micro, self.processes)
        self.skipped_in_a_row = 0
        critic = critic_of(policy, parts.advantage)
        self.head = LossHead(parts.loss, policy, self.config, self.seed)
        modules = {"policy": policy.model, "critic": critic, "loss": self.head.module}
        check_patterns(self.config, modules)
        self.learner = self._new_learner("policy", policy.model, policy.wrapped, previous)
        self.critic: CriticUpdate | None = None
        if critic is not None:
            learner = self._new_learner("critic", critic, self.processes.wrap(critic))
            self.critic = CriticUpdate(critic, learner, parts.advantage, self.micro)

    def reset(self) -> None:
        """Fresh optimizers: no moments."""
        policy = self.policy
        self.learner = self._new_learner("policy", policy.model, policy.wrapped, self.learner)
        self.head.reset(self.config)
        if self.critic is not None:
            old = self.critic.learner
            self.critic.learner = self._new_learner("critic", old.module, old.wrapped, old)

    def _new_learner(
        self, name: str, module: nn.Module, wrapped: nn.Module, previous: Learner | None = None
    ) -> Learner:
        optimizer = make_optimizer(name, module, self.config)
        return self.processes.learner(module, wrapped, optimizer, previous)

    def run(self, batch: TrainBatch, passes: int, step: int, tokens_of: int = 0) -> UpdateResult:
        """All passes over the batch. The tokens of `tokens_of` groups are recorded."""
        rates = self._set_learning_rate(step)
        kept = rows_of_groups(batch.loss.group, batch.groups, tokens_of, self.seed, step)
        recorder = TokenRecorder(kept, batch.loss, passes, self.policy.device)
        watch = recorder.note
        backprop = self.head.beside(self.learner)
        objective = replace(self.objective, step=step, backprop=backprop, watch=watch)
        first = torch.zeros(2, *batch.values.shape, device=self.policy.device)
        sums, own = MetricSums(), batch.own
        rate = EssRate(self.config.lr_ess, self.processes)
        steps: list[tuple[float, float]] = []
        skipped: list[Tensor] = []
        for number, rows in self._minibatches(batch.loss.group, batch.groups, step, passes):
            recorder.begin(number, rows)
            result, norm = self._policy_step(objective, batch, rows, number)
            for part, terms in result.terms if number == 0 else ():
                first[:, rows[part]] = torch.stack([terms.logp, terms.entropy])
            if batch.own.late.any():
                loss, own = own.completed(batch.loss, self.processes.all_reduce(first)[0].cpu())
                batch = replace(batch, loss=loss, own=own)
            ess = rate.ess(batch.loss, rows, result.terms)
            if self._accepts(result.value, norm, ess):
                with explained(OPTIMIZER), rate.applied(ess, self.learner, self.head.learner):
                    self.learner.step()
                    self.head.step()
                sums.plus(result.sums)
                steps.append((result.value, norm))
            else:
                backprop.zero_grad()
                skipped.append(rows)
            if self.is_stuck:
                break
            if self.critic is not None:
                self.critic.step(batch, rows, self.config.max_grad_norm)
        logp, entropy = self.processes.all_reduce(first).cpu()
        noted = PolicyTerms(logp=logp, entropy=entropy)
        metrics = {
            **sums.over(self.processes).means(),
            **mean_steps(steps),
            "policy/skipped_steps": len(skipped),
            **self.micro.metrics(),
            **rates,
            **rate.metrics(),
            **self.head.metrics(),
            **first_pass_metrics(noted, batch.loss),
            **own.mismatch(batch.loss),
            **(self.critic.metrics(batch) if self.critic is not None else {}),
        }
        skipped_rows = torch.cat(skipped).tolist() if skipped else []
        scores = scores_of(batch, noted, leave_out=set(skipped_rows))
        seen = recorder.seen(batch.loss, self.processes)
        return UpdateResult(metrics=metrics, scores=scores, skipped_rows=skipped_rows, seen=seen)

    @property
    def is_stuck(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.skipped_in_a_row >= self.config.max_skipped_steps

    def _accepts(self, *found: float) -> bool:
        """Whether a step may be taken by what was found; counts the refused ones in a row."""
        finite = all(map(math.isfinite, found))
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        return finite

    def state_dict(self) -> State:
        """Optimizers and critic, and how often micro-batches were halved."""
        state: State = {
            "optimizer": self.learner.state_dict(keep=self.processes.is_main),
            "skipped_in_a_row": self.skipped_in_a_row,
            "halvings": self.micro.halvings,
        }
        state |= self.head.state_dict()
        return state | (self.critic.state_dict() if self.critic is not None else {})

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.learner.load_state_dict(state["optimizer"])
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.micro.halve(state["halvings"])
        self.head.load_state_dict(state)
        if self.critic is not None:
            self.critic.load_state_dict(state)

    def _set_learning_rate(self, step: int) -> dict[str, float]:
        """Set every group's learning rate; returns what is logged of them."""
        factor = self.config.learning_rate_factor(step)
        rate = self.config.learning_rate * factor
        rates = {"policy/lr": rate, **set_rate("policy", self.learner, rate)}
        rates |= self.head.set_rate(rate)
        if self.critic is not None:
            rate = self.config.critic_learning_rate * factor
            rates |= set_rate("critic", self.critic.learner, rate)
        return rates

    def first_rows(self, group: Tensor, groups: int, step: int) -> Tensor:
        """[B] bool: the rows that are trained before the weights move in a step."""
        first = torch.zeros(len(group), dtype=torch.bool)
        for _, rows in islice(self._minibatches(group, groups, step, 1), 1):
            first[rows] = True
        return first

    def _minibatches(
        self, group: Tensor, groups: int, step: int, passes: int
    ) -> Iterator[tuple[int, Tensor]]:
        """The pass and the rows of each minibatch: whole groups, shuffled anew in each pass.

        The minibatches of a pass differ by at most one group.
        """
        for number in range(passes):
            shuffle = stream_rng(self.seed, "minibatch", step, number).permutation(groups)
            count = min(self.config.minibatches, groups)
            for chosen in torch.tensor_split(torch.from_numpy(shuffle), count):
                yield number, torch.isin(group, chosen).nonzero().squeeze(-1)

    def _policy_step(
        self, objective: Objective, batch: TrainBatch, rows: Tensor, number: int
    ) -> tuple[MinibatchResult, float]:
        """Accumulate and clip a minibatch's gradient; its result and the norm before clipping."""
        mode: EntropyMode = "value" if number == 0 else "none"
        mode = "gradient" if self.parts.needs("entropy") else mode
        tokens, minibatch = batch.tokens.rows(rows), batch.loss.rows(rows)

        def forward(part: Tensor) -> PolicyTerms:
            row = int(rows[part[0]]) if len(part) else -1
            masks = stream_seed(self.seed, "dropout", objective.step, number, row)
            self.micro.note(chosen := some_rows(tokens, part))
            through = self.learner.wrapped
            return self.policy.terms(chosen, mode, through, masks, self.head.module)

        def backward(budget: int) -> MinibatchResult:
            objective.backprop.zero_grad()
            splits = self.micro.split(tokens, budget)
            late = batch.own.late[rows] if batch.own.is_prox else None
            return objective.backward(forward, minibatch, splits, late)

        result = self.micro.run(backward, int(tokens.lengths.max()))
        own = self.head.clip(self.config.max_grad_norm, objective.backprop.scale)
        norm = self.learner.clip(self.config.max_grad_norm)
        return result, norm if math.isfinite(own) else own


def scores_of(batch: TrainBatch, terms: PolicyTerms, leave_out: set[int]) -> dict[int, Score]:
    """What a buffer learns about each trained sample, from the policy's terms [B, T]."""
    means = [sequence_mean(x, batch.loss.mask) for x in (terms.entropy, batch.loss.advantage)]
    return {
        sample.sample_id: Score(terms.logp[i, : len(sample.response_ids)], *mean)
        for i, (sample, mean) in enumerate(
            zip(batch.samples, torch.stack(means, 1).tolist(), strict=True)
        )
        if i not in leave_out
    }
