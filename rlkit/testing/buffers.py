"""What a replay buffer must do."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Demonstration, Group, Prompt, Request, Sample, Score
from rlkit.interfaces import ReplayBuffer, RunContext, State
from rlkit.testing.base import require, stored
from rlkit.training.held_state import HeldState

BATCH = 5
STEPS = 6
FEW_SAMPLES = 4
LONGEST = 16


@dataclass
class FakePrompts:
    """An endless source of numbered prompts."""

    num_generations: int = FEW_SAMPLES
    max_completion_length: int = LONGEST
    max_prompt_length: int = LONGEST
    taken: int = 0
    known: dict[str, Prompt] = field(default_factory=dict)

    def take(self, n: int) -> list[Prompt]:
        """The next n prompts."""
        return [self._make() for _ in range(n)]

    def get(self, prompt_id: str) -> Prompt:
        """A prompt by its id."""
        return self.known[prompt_id]

    def prompt(self, prompt_id: str, row: Mapping[str, object]) -> Prompt:
        """A row as a prompt."""
        return Prompt(
            prompt_id=prompt_id,
            text_or_messages=str(row["prompt"]),
            ids=torch.tensor([self.taken, 1]),
            columns={name: value for name, value in row.items() if name != "prompt"},
        )

    def response(self, text: str) -> Tensor:
        """One token per character, and the end."""
        return torch.tensor([*map(ord, text), 0])

    @property
    def any(self) -> Prompt:
        """Some prompt."""
        return self.prompt("any", {"prompt": "any"})

    def _make(self) -> Prompt:
        name = f"prompt-{self.taken}"
        self.taken += 1
        answer = str(self.taken)
        columns = {
            "answer": answer,
            "solution": answer,
            "chosen": answer,
            "rejected": "0",
            "levels": [1, {"easy": True}],
        }
        self.known[name] = self.prompt(name, {"prompt": name, **columns})
        return self.known[name]


class FakeRollouts:
    """Answers requests with numbered responses whose rewards differ inside a group."""

    def __init__(self) -> None:
        self.made = 0

    def group(self, prompt: Prompt, n: int, step: int) -> Group:
        """n responses to a prompt, sampled at a step."""
        return Group(prompt=prompt, samples=[self._sample(prompt, step) for _ in range(n)])

    def groups(self, requests: list[Request], step: int) -> list[Group]:
        """One group per request, with its demonstrations."""
        groups = [self.group(request.prompt, request.n, step) for request in requests]
        for group, request in zip(groups, requests, strict=True):
            group.samples.extend(shown(group.prompt, d, step) for d in request.demonstrations)
        return groups

    def _sample(self, prompt: Prompt, step: int) -> Sample:
        self.made += 1
        length = 1 + self.made % 3
        reward = float(self.made % 2)
        return Sample(
            sample_id=self.made,
            prompt_id=prompt.prompt_id,
            response_ids=torch.arange(length) + self.made,
            loss_mask=torch.ones(length, dtype=torch.bool),
            behavior_logp=-torch.arange(1.0, length + 1) / (self.made + 1),
            policy_version=torch.full((length,), step, dtype=torch.int32),
            reward=reward,
            rewards={"task": reward},
            finish_reason="stop",
            step=step,
            extras={"seed": float(self.made), "kept": torch.zeros(length)},
        )


class FakeStored:
    """Stored rollouts of numbered groups, whose samples' ids are negative."""

    def __len__(self) -> int:
        return 2 * BATCH + 1

    def groups(self, places: Sequence[int]) -> list[Group]:
        """The groups at these places."""
        return [self._group(place) for place in places]

    def refresh(self) -> None:
        """There is never more."""

    def figures(self) -> Mapping[str, float]:
        """Nothing is done to them."""
        return {}

    def state_dict(self) -> State:
        """Nothing changes."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to take back."""

    def _group(self, place: int) -> Group:
        group = FakeRollouts().group(FakePrompts().any, FEW_SAMPLES, step=0)
        numbered = [
            replace(sample, sample_id=-FEW_SAMPLES * place - sample.sample_id)
            for sample in group.samples
        ]
        return replace(group, samples=numbered)


def shown(prompt: Prompt, demonstration: Demonstration, step: int) -> Sample:
    """A demonstration as a sample."""
    length = len(demonstration.response_ids)
    return Sample(
        sample_id=-demonstration.number,
        prompt_id=prompt.prompt_id,
        response_ids=demonstration.response_ids,
        loss_mask=torch.ones(length, dtype=torch.bool),
        behavior_logp=torch.zeros(length),
        policy_version=torch.full((length,), step, dtype=torch.int32),
        reward=1.0 if demonstration.reward is None else demonstration.reward,
        rewards={},
        finish_reason="stop",
        source="expert",
        step=step,
    )


def ids(groups: list[Group]) -> list[list[int]]:
    """The sample ids of groups."""
    return [[sample.sample_id for sample in group.samples] for group in groups]


class Cycle:
    """A buffer in the training loop's order, with made-up responses."""

    def __init__(self, buffer: ReplayBuffer[Any]) -> None:
        self.buffer = buffer
        self.prompts, self.rollouts = FakePrompts(), FakeRollouts()
        self.made: dict[int, Sample] = {}

    def fresh(self, step: int) -> list[Group]:
        """What the buffer plans, generated."""
        requests = self.buffer.plan(BATCH, step, self.prompts)
        reads = self.buffer.reads_rollouts
        require(requests or reads, "plan asks for nothing; a step needs at least one fresh group")
        groups = self.rollouts.groups(requests, step)
        self.made |= {s.sample_id: copy.deepcopy(s) for g in groups for s in g.samples}
        return groups

    def build(self, fresh: list[Group], step: int) -> list[Group]:
        """What the buffer trains on, after the scores it wants."""
        wanted = self.buffer.scores_wanted(step)
        self.buffer.observe(scores([Group(prompt=self.prompts.any, samples=wanted)]))
        return self.buffer.build(fresh, BATCH, step)

    def step(self, step: int) -> list[Group]:
        """One step: what was trained."""
        fresh = self.fresh(step)
        trained = self.build(fresh, step)
        self.buffer.add(fresh, step)
        self.buffer.observe(scores(trained))
        return trained


def scores(groups: list[Group]) -> dict[int, Score]:
    """Made-up scores of every sample."""
    return {
        s.sample_id: Score(logp=s.behavior_logp - 0.1, entropy=1.0, advantage=s.reward - 0.5)
        for group in groups
        for s in group.samples
    }


def batches_are_whole_and_samples_untouched(buffer: ReplayBuffer[Any]) -> None:
    """At most the batch's groups, none empty, no sample twice, every sample as it was generated."""
    cycle = Cycle(fresh_copy(buffer))
    for step in range(1, STEPS + 1):
        trained = cycle.step(step)
        require(
            0 < len(trained) <= BATCH, f"build gives {len(trained)} groups for a batch of {BATCH}"
        )
        require(all(group.samples for group in trained), "build gives a group without samples")
        flat = [sample for group in trained for sample in group.samples]
        require(
            len({s.sample_id for s in flat}) == len(flat), "build gives a sample twice in a step"
        )
        for sample in flat:
            require(
                unchanged(sample, cycle.made.get(sample.sample_id, sample)),
                "build changes a sample",
            )


def unchanged(sample: Sample, made: Sample) -> bool:
    """Whether what a loss reads of a sample is what was generated."""
    return (
        torch.equal(sample.behavior_logp.nan_to_num(1.0), made.behavior_logp.nan_to_num(1.0))
        and torch.equal(sample.response_ids, made.response_ids)
        and sample.reward == made.reward
    )


def fresh_copy(buffer: ReplayBuffer[Any]) -> ReplayBuffer[Any]:
    """An empty buffer with the same settings."""
    empty = type(buffer)(buffer.config)
    empty.open(RunContext(seed=7, open_rollouts=lambda data: FakeStored()))
    return empty


def a_resumed_buffer_draws_the_same(buffer: ReplayBuffer[Any]) -> None:
    """A buffer with the saved state builds the same next batches, and holds no other state."""
    cycle = Cycle(fresh_copy(buffer))
    held = HeldState({"buffer": cycle.buffer})
    for step in range(1, STEPS):
        cycle.step(step)
    lost = held.lost()
    require(lost is None, str(lost))
    again = copy.copy(cycle)
    again.buffer = fresh_copy(buffer)
    again.buffer.load_state_dict(stored(cycle.buffer.state_dict()))
    again.prompts, again.rollouts = copy.deepcopy((cycle.prompts, cycle.rollouts))
    require(len(again.buffer) == len(cycle.buffer), "a checkpoint changes how much is stored")
    for step in range(STEPS, 2 * STEPS):
        require(
            ids(cycle.step(step)) == ids(again.step(step)),
            "the batch after a checkpoint differs; state_dict leaves something out, or a draw "
            "does not come from self.rng(step)",
        )


def a_cleared_buffer_is_empty(buffer: ReplayBuffer[Any]) -> None:
    """clear() forgets everything; the next step still trains."""
    cycle = Cycle(fresh_copy(buffer))
    for step in range(1, STEPS):
        cycle.step(step)
    cycle.buffer.clear()
    require(len(cycle.buffer) == 0, "clear() leaves something stored")
    require(cycle.step(STEPS), "after clear() nothing is trained")


def skipped_updates_are_harmless(buffer: ReplayBuffer[Any]) -> None:
    """A sample whose update was skipped has no score; the buffer goes on without it."""
    cycle = Cycle(fresh_copy(buffer))
    for step in range(1, 2 * STEPS + 1):
        fresh = cycle.fresh(step)
        trained = cycle.build(fresh, step)
        cycle.buffer.add(fresh, step)
        found = scores(trained)
        scored = {n: found[n] for n in found if step % 3 and (n % 4 or step % 2)}
        try:
            cycle.buffer.observe(scored)
        except KeyError as error:
            raise AssertionError(
                f"observe needs the score of sample {error}; a sample whose update was skipped has "
                "none"
            ) from error
        require(0 < len(trained) <= BATCH, "skipped updates change the size of the batch")


BUFFER = (
    batches_are_whole_and_samples_untouched,
    a_resumed_buffer_draws_the_same,
    a_cleared_buffer_is_empty,
    skipped_updates_are_harmless,
)
