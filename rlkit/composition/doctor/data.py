"""Can the task's rows be read, and can every reward score an answer to them?"""

from __future__ import annotations

from rlkit.composition.doctor.check import Check, Notes
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.rehearsal import rehearse

NAME = "data"


def check(patient: Patient) -> Check:
    """What a run finds out about its data and rewards before it loads the model."""
    notes, c = Notes(NAME), patient.c
    rehearse(c)
    train, held_out = c.rows
    which = "the reward" if len(c.rewards) == 1 else "the rewards"
    scored = f"{which} {', '.join(c.rewards)} can score an answer to them."
    notes.fine(
        f"{len(train)} problems to train on and {len(held_out)} to evaluate on; "
        f"{scored if c.rewards else 'the run has no reward, and generates nothing to score.'}"
    )
    notes.figures |= {"train": len(train), "eval": len(held_out)}
    return notes.result()
