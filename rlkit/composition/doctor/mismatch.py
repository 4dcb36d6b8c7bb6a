"""Do the engine and the trainer agree on the log-probs of the sampled tokens?"""

from __future__ import annotations

import torch

from rlkit.composition.doctor.causes import cause_of
from rlkit.composition.doctor.check import Check, Notes
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.positions import by_position, worst_of
from rlkit.composition.doctor.scored import Scored
from rlkit.rollout.precision import engine_dtype, rounding_bound

NAME = "log-probs"
BOUND_ROWS = 8
"""Responses on which rounding is measured."""
FAR = 3.0
"""So many times what rounding explains is more than an unlucky token."""


def check(patient: Patient) -> Check:
    """Their difference overall, by position, and for prompts asked a second time."""
    notes, scored = Notes(NAME), patient.scored
    bound = allowed(patient, scored)
    found = by_position(scored)
    worst = max(found["max"], float(scored.again.max()) if len(scored.again) else 0.0)
    notes.figures |= {**found, "again_max": worst_of(scored.again), "rounding": bound}
    numbers = (
        f"over {int(scored.mask.sum())} tokens of {len(scored.answers)} fresh responses the mean "
        f"difference is {found['mean']:.2g} nats and the largest {found['max']:.2g} (rounding "
        f"explains {bound:.2g}); first tokens {found['first']:.2g}"
    )
    if any(g.finish_reason == "stop" for _, g in scored.answers):
        numbers += f", end tokens {found['end']:.2g}"
    if len(scored.again):
        numbers += f", problems asked a second time {worst_of(scored.again):.2g}"
    if worst <= bound:
        notes.fine(f"Engine and trainer agree: {numbers}.")
        return notes.result()
    cause, advice = cause_of(patient, scored, bound)
    told = notes.problem if worst > FAR * bound else notes.warn
    told(f"Engine and trainer differ: {numbers}. {cause}", advice)
    return notes.result()


def allowed(patient: Patient, scored: Scored) -> float:
    """How far rounding may move a log-prob, in nats."""
    policy, config = patient.policy, patient.engine.config
    asked = None if patient.engine.matches_trainer else getattr(config, "dtype", None)
    rows = torch.arange(min(BOUND_ROWS, len(scored.answers)))
    return rounding_bound(policy, scored.tokens.rows(rows), engine_dtype(policy, asked))
