"""The progress that a schedule is asked with."""

from __future__ import annotations

from rlkit.interfaces import Progress


def at(step: int, score: float, eval_step: int) -> Progress:
    return Progress(
        step=step,
        steps=100,
        rollouts=0,
        metrics={},
        eval={"eval/pass@1": score},
        eval_step=eval_step,
    )
