"""The pieces of a training step, for tests: responses, parts, a prepared batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

import rlkit
from rlkit.batch import Demonstration, Group, Request
from rlkit.config.run import RunConfig, TrainConfig
from rlkit.interfaces import PromptSource, ReplayBuffer
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.source import OnDemand, StepPlan
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
from rlkit.training.collect import Collected, Collector
from rlkit.training.micro_batches import Forwards, MicroBatches
from rlkit.training.prepare import Scorer, TrainBatch, prepare
from rlkit.training.references import BehaviorLogp, Parts
from rlkit.training.update import Updater

ROWS = [{"prompt": f"{i}+{i}=", "answer": "1"} for i in range(6)]


def has_one(prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float]:
    return [float("1" in c) for c in completions]


def collected(
    policy: Policy,
    requests: Sequence[Request],
    step: int,
    *,
    advantage: str = "group_norm",
    first_id: int = 0,
) -> Collected:
    """What the tiny policy answers at a step, scored by whether it wrote a 1."""
    engine = HFRollout(HFConfig(max_completion_length=6))
    engine.start(policy, seed=0)
    engine.sync(step)
    part = rlkit.build("advantage", advantage)
    source = OnDemand(engine, greedy=part.needs_greedy)
    rewards = RewardSet({"one": reward_class(has_one)()})
    collector = Collector(source, rewards, part, policy.tokenizer)
    return collector.collect(plan_of(requests, step), first_id=first_id)


def rollout(policy: Policy, step: int, n: int = 4, prompts: int = 4) -> list[Group]:
    chosen = Prompts("train", ROWS, policy.tokenizer)[:prompts]
    requests = [Request(prompt=p, n=n) for p in chosen]
    return collected(policy, requests, step, first_id=100 * step).groups


def shown(number: int, ids: Tensor, reward: float | None = None) -> Demonstration:
    return Demonstration(number=number, response_ids=ids, reward=reward)


def parts(loss: str = "remix", anchor: str = "none", advantage: str = "group_norm") -> Parts:
    return Parts(
        loss=rlkit.build("loss", loss),
        corrections=(),
        advantage=rlkit.build("advantage", advantage),
        anchor=rlkit.build("anchor", anchor),
    )


def prepared(policy: Policy, groups: list[Group], step: int, chosen: Parts) -> TrainBatch:
    return prepare(groups, step, chosen, scorer(policy))


def move(policy: Policy) -> None:
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


class Planned(ReplayBuffer):
    """Plans the requests it is given."""

    def __init__(self, requests: Sequence[Request]) -> None:
        super().__init__()
        self.requests = list(requests)

    def fresh_share(self, batch: int) -> int:
        return len(self.requests)

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        return self.requests

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return fresh

    def add(self, fresh: list[Group], step: int) -> None:
        pass

    def clear(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class Drawing(Planned):
    """Plans two groups of new prompts at a time, whatever a step wants."""

    def __init__(self, wanted: int, n: int) -> None:
        super().__init__(())
        self.wanted, self.n = wanted, n

    def fresh_share(self, batch: int) -> int:
        return self.wanted

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        return [Request(prompt=p, n=self.n) for p in prompts.take(2)]


def drawing(prompts: PromptStream, step: int, wanted: int = 2, n: int = 2) -> StepPlan:
    """A step that waits for so many groups and plans them two by two."""
    return StepPlan(buffer=Drawing(wanted, n), prompts=prompts, groups=wanted, step=step)


def plan_of(requests: Sequence[Request], step: int) -> StepPlan:
    """A step that generates these requests, and asks for them again while groups are missing."""
    nothing = PromptStream(cast("Prompts", ()), 0, 1, 1)
    return StepPlan(buffer=Planned(requests), prompts=nothing, groups=len(requests), step=step)


def scorer(
    policy: Policy,
    behavior: BehaviorLogp = "own",
    updater: Updater | None = None,
    budget: int = 64,
    *,
    late: bool = False,
) -> Scorer:
    """The policy's forwards, in micro-batches of `budget` tokens; the updater's critic, if any.

    If `late`, what the updater's first forward finds is left to it.
    """
    micro = MicroBatches(budget, policy.processes, policy.layout)
    critic = updater.critic if updater is not None else None
    return Scorer(
        policy=policy,
        critic=critic.critic if critic is not None else None,
        forwards=Forwards(micro, policy.processes),
        behavior=behavior,
        first=updater.first_rows if late and updater is not None else nothing_first,
    )


def updater_of(policy: Policy, chosen: Parts, **train: Any) -> Updater:
    """What updates the policy; by default so little that nothing moves."""
    settings = {"learning_rate": 1e-12, "prompts_per_step": 4, **train}
    config = RunConfig(output_dir="x", train=TrainConfig.model_validate(settings))
    return Updater(config, policy, chosen, 6)


def nothing_first(group: torch.Tensor, groups: int, step: int) -> torch.Tensor:
    """Every log-prob is known before the updates."""
    return torch.zeros(len(group), dtype=torch.bool)
