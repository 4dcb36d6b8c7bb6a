"""How long are the prompts, and do they suit the model and the buffer?"""

from __future__ import annotations

from rlkit.composition.data_checks import check_kept, check_room
from rlkit.composition.doctor.check import Check, Notes, between, share
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.problems import longest_allowed
from rlkit.errors import UserError
from rlkit.rewards.scoring import check_columns

NAME = "prompts"
MANY = 0.1
"""A share of dropped problems from which on it is a warning."""


def check(patient: Patient) -> Check:
    """Count prompts that are too long, in a sample of the data; try what a run checks."""
    notes, c, looked = Notes(NAME), patient.c, patient.problems
    limit, lengths = longest_allowed(c), looked.lengths
    over = sum(length > limit for length in lengths)
    empty = sum(length == 0 for length in lengths)
    notes.figures |= {"looked_at": len(lengths), "too_long": over, "longest": max(lengths)}
    median = sorted(lengths)[len(lengths) // 2]
    notes.fine(
        f"Prompts have {between(min(lengths), max(lengths))} tokens (median {median}), in "
        f"{share(len(lengths), looked.total)} problems."
    )
    if empty:
        notes.problem(f"{share(empty, len(lengths))} prompts are empty.", "Remove their rows.")
    if over and c.task.config.overlong == "error":
        notes.problem(
            f"{share(over, len(lengths))} prompts looked at are longer than "
            f"rollout.max_prompt_length={limit}, and the run would stop at the first.",
            f"Set rollout.max_prompt_length={max(lengths)} or task.overlong=drop.",
        )
    elif over:
        told = notes.warn if over > MANY * len(lengths) else lambda finding, _: notes.fine(finding)
        told(
            f"{share(over, len(lengths))} prompts looked at are longer than "
            f"rollout.max_prompt_length={limit} and are dropped.",
            f"Set rollout.max_prompt_length={max(lengths)} to keep them.",
        )
    try:
        check_columns({name for row in looked.rows for name in row})
        check_room(looked.prompts, patient.policy, c.engine.config.max_completion_length)
        if c.buffer.keeps_columns:
            check_kept(looked.rows)
    except UserError as error:
        notes.problem(f"The run would stop: {error}.", "")
    return notes.result()
