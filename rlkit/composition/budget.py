"""How many responses a run will generate, counted by its own parts, without generating any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlkit.composition.composition import Composition
from rlkit.interfaces import Progress

ROWS = 10
"""About how many lines of the budget are printed, not counting the phase changes."""


@dataclass(frozen=True)
class Entry:
    """What a run has generated after a step."""

    step: int
    phase: str
    responses: int


class Zeros(dict[str, float]):
    """Every key's value is 0."""

    def __missing__(self, key: str) -> float:
        return 0.0

    def __contains__(self, key: object) -> bool:
        return True


def entries(parts: Sequence[Composition]) -> Iterator[Entry]:
    """After each step of the run's stages, the responses generated so far.

    A step generates `fresh_share` groups of num_generations, or the whole batch if the phase does
    not replay. Schedules see a run whose every metric is 0, so those that follow metrics stay in
    their first phase. Demonstrations may take the place of responses counted here.
    """
    done = responses = 0
    for part in parts:
        train, size = part.config.train, part.engine.config.num_generations
        for step in range(1, train.steps + 1):
            seen = Progress(
                step=step, steps=train.steps, rollouts=responses, metrics=Zeros(), eval=Zeros()
            )
            phase = part.schedule.checked(seen)
            batch = train.prompts_per_step
            responses += size * (part.buffer.fresh_share(batch) if phase.replay else batch)
            done += 1
            yield Entry(done, phase.name, responses)


def budget(parts: Sequence[Composition]) -> list[str]:
    """The budget as printed lines: some of the steps, and the last step of each phase."""
    every = list(entries(parts))
    interval = parts[0].config.eval.every or max(1, len(every) // ROWS)
    shown = [
        entry
        for entry, following in zip(every, [*every[1:], None], strict=True)
        if following is None or following.phase != entry.phase or entry.step % interval == 0
    ]
    return [f"After step {e.step} ({e.phase}): {e.responses} responses." for e in shown]
