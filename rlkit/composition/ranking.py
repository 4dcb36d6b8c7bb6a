"""The evaluation of a run on preferences that has no reward: its held-out pairs are ranked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlkit.composition.compose import compose, needs_no_reward
from rlkit.composition.composition import Composition, Raw
from rlkit.composition.evaluators import held_out_pairs
from rlkit.composition.models_beside import model_opener
from rlkit.composition.saved import same_task
from rlkit.composition.session import RunScope, close, probe_policy, told_policy
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.models.numerics import numerics
from rlkit.registry import entry
from rlkit.runs.checkpoint import load_tree
from rlkit.runs.generators import seed_generators
from rlkit.training.counters import load_counters

OWN = ("task", "eval", "seed")
"""The sections that are the evaluation's own; all else is the run's."""


def ranked_run(raw: Raw, saved: Raw | None) -> Composition | None:
    """The run that wrote a checkpoint, to rank its pairs; None for one with answers to reward.

    `raw` is the evaluation's own configuration, and `saved` that of the run. Raises UserError for a
    run in stages, whose last loss the checkpoint does not name.
    """
    if saved is None or raw.get("reward") or saved.get("reward") or not same_task(raw, saved):
        return None
    if not entry("task", saved["task"]["name"]).cls.compares:
        return None
    alone = {"output_dir": ".", "tracker": {}, "resume": "never", "stages": []}
    model = {**saved["model"], "device": raw["model"]["device"]}
    whole = {**saved, **{key: raw[key] for key in OWN}, **alone, "model": model}
    c = compose({key: value for key, value in whole.items() if key in raw or key in alone})
    if not needs_no_reward(c.task, c.buffer, c.config):
        return None
    if saved.get("stages"):
        raise UserError(
            "this checkpoint is of a run in stages without a reward, and which loss ranks its "
            "preferences is not known: choose a reward=[<name>] that scores answers"
        )
    return c


def rank(
    c: Composition, checkpoint: Path, say: Callable[[str], None]
) -> tuple[dict[str, float], int]:
    """The metrics of the run's own evaluation of a checkpoint, and the number of pairs.

    Reference policies are those of the checkpoint.
    """
    seed_generators(c.config.seed)
    run = RunScope.of(c, say=say)
    try:
        with numerics(c.config.model):
            policy = told_policy(c, run, checkpoint, None)
            probe_policy(policy, c.config, run, checkpoint)
            longest = c.engine.config.max_completion_length
            c.parts.anchor.open(
                RunContext(
                    seed=c.config.seed,
                    max_completion_length=longest,
                    read_by_loss=c.read_by_loss,
                    say=say,
                    open_model=model_opener(c, policy, say),
                )
            )
            state: dict[str, Any] = load_tree(checkpoint / "state" / "anchor")
            c.parts.anchor.restore(policy, state)
            evaluators, notes = held_out_pairs(c, policy)
            for note in notes:
                say(note)
            step = load_counters(checkpoint).step
            (evaluator,) = evaluators
            count = len(evaluator.groups)
            say(f"Ranking held-out preferences ({count}); nothing is generated.")
            return evaluator.run(step), count
    finally:
        close(c)
