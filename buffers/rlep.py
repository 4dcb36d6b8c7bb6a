"""Replay of verified successes from a fixed pool (RLEP)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import torch
from pydantic import Field

from buffers.prompt_store import PromptStore
from buffers.replay import AgeConfig, by_age, sample_staleness
from rlkit.batch import Group, Sample
from rlkit.errors import UserError
from rlkit.interfaces import FileRow, RunContext, RunSize
from rlkit.registry import register

FIRST_ID = -(2**42)
"""Responses of a pool count down from here, below demonstrations, stored rollouts and pairs."""


class RlepConfig(AgeConfig):
    """Settings of the pool and of the share each group gets from it."""

    pool: str | None = None
    """File of an earlier run's responses, in any format of a task's data: prompt_id, response_ids,
    behavior_logp (one per token) and reward. null = the run collects its own pool in its first
    steps."""
    collect_steps: Annotated[int, Field(ge=0)] = 100
    """Without a file: the steps whose successes become the pool. Replay starts after them."""
    per_prompt: Annotated[int, Field(ge=1)] = 64
    """Successes kept for a prompt, the first ones; RLEP samples 64 responses per prompt."""
    replayed: Annotated[int, Field(ge=0)] = 2
    """Successes added to each group of new responses, M."""
    success_at: float = 1.0
    """A response with at least this reward is a success."""


def pool_sample(line: FileRow) -> Sample:
    """A response of a pool file, numbered by its line.

    Raises UserError for what is no response.
    """
    row = line.columns
    try:
        ids = torch.tensor(row["response_ids"], dtype=torch.int64)
        logp = torch.tensor(row["behavior_logp"], dtype=torch.float32)
        name, reward = str(row["prompt_id"]), float(row["reward"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{line.place}: a row of buffer.pool needs prompt_id, response_ids, behavior_logp "
            f"and reward ({type(error).__name__}: {error})"
        ) from error
    if ids.ndim != 1 or ids.shape != logp.shape or not len(ids):
        raise UserError(f"{line.place}: response_ids and behavior_logp need one value per token")
    return Sample(
        sample_id=FIRST_ID - line.number,
        prompt_id=name,
        response_ids=ids,
        loss_mask=torch.ones(len(ids), dtype=torch.bool),
        behavior_logp=logp,
        policy_version=torch.zeros(len(ids), dtype=torch.int32),
        reward=reward,
        rewards={},
        finish_reason="stop",
        step=0,
    )


@register("buffer", "rlep")
class Rlep(PromptStore[RlepConfig]):
    """Each group of G new responses gets M random successes of its prompt from a static pool.

    Advantages are standardized over the G + M responses of the group. Failures are not stored:
    RLEP found no gain in them. Source: RLEP (arXiv:2507.07451). Status: the draw is exact; the pool
    the run collects itself when no file is given is our choice, since RLEP's comes from an earlier
    run and training then restarts from the base model. Responses of the pool count as sampled at
    step 0,
    and a pool ages with the run: `max_age` ends its use.

    Public code: Kwai-Klear/RLEP, G = 16 and M = 2. Its ratio is against the policy at the start of
    the step, also on replayed tokens: use a loss that divides by prox.
    """

    sources = ("2507.07451",)

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Check the pool, if there is one."""
        if self.config.pool is not None:
            for line in read(self.config.pool):
                pool_sample(line)

    def out_of_reach(self, run: RunSize) -> str | None:
        """Replay, if the run ends before its own pool is whole."""
        c = self.config
        if c.pool is not None:
            return None
        missed = f"nothing is replayed in the first {c.collect_steps} steps"
        return run.ends_by(c.collect_steps, missed, "set buffer.collect_steps or buffer.pool")

    def replays(self, batch: int) -> bool:
        """Every group may have successes of the pool."""
        return self.config.replayed > 0

    def open(self, context: RunContext) -> None:
        """Read the pool, and say for how many of the task's problems it has successes."""
        super().open(context)
        if self.config.pool is None:
            return
        self.clear()
        self._store(map(pool_sample, context.read_rows(self.config.pool)))
        known = sum(name in context.problems for name in self.stored)
        context.say(
            f"{self.config.pool}: successes for {len(self.stored)} prompts, {known} of them among "
            f"the {len(context.problems)} of the task."
        )

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, each with up to M successes of its prompt; no success twice."""
        if self.config.pool is None and step <= self.config.collect_steps:
            return fresh
        rng = self.rng(step)
        used: set[int] = set()
        trained: list[Group] = []
        for group in fresh:
            left = [
                s for s in self.stored.get(group.prompt.prompt_id, []) if s.sample_id not in used
            ]
            drawn: list[Sample] = []
            for tier in by_age(left, lambda sample: sample_staleness(sample, step), self.config):
                count = min(self.config.replayed - len(drawn), len(tier))
                drawn += [tier[i] for i in rng.choice(len(tier), size=count, replace=False)]
            used.update(sample.sample_id for sample in drawn)
            trained.append(Group(prompt=group.prompt, samples=[*group.samples, *drawn]))
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's successes while the run collects its pool."""
        if self.config.pool is None and step <= self.config.collect_steps:
            self._store(sample for group in fresh for sample in group.samples)

    def stats(self) -> dict[str, float]:
        """Prompts with successes."""
        return {"prompts": float(len(self.stored))}

    def _store(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            if sample.reward >= self.config.success_at:
                stored = self.stored.get(sample.prompt_id, [])
                if len(stored) < self.config.per_prompt:
                    self.put(sample.prompt_id, [*stored, sample])
