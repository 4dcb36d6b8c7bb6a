"""Are most responses finished, or cut at the length limit?"""

from __future__ import annotations

from rlkit.composition.doctor.check import Check, Notes, between, share
from rlkit.composition.doctor.patient import Patient

NAME = "lengths"
MANY = 0.5
"""A share of cut responses from which on it is a warning."""


def check(patient: Patient) -> Check:
    """How long responses are, and how many are cut."""
    notes, answers = Notes(NAME), patient.answers
    lengths = sorted(len(g.response_ids) for _, g in answers.flat)
    cut = sum(g.finish_reason == "length" for _, g in answers.flat)
    limit = patient.c.engine.config.max_completion_length
    mean = sum(lengths) / len(lengths)
    notes.figures |= {
        "responses": len(lengths),
        "cut": cut,
        "mean": mean,
        "limit": answers.limit,
    }
    average = f", {mean:.0f} on average" if lengths[0] < lengths[-1] else ""
    notes.fine(f"Responses have {between(lengths[0], lengths[-1])} tokens{average}.")
    if answers.limit < limit:
        notes.fine(
            f"There was time for {answers.limit} of rollout.max_completion_length={limit} tokens, "
            f"at which {share(cut, len(lengths))} were cut; --seconds gives more."
        )
        return notes.result()
    finding = f"{share(cut, len(lengths)).capitalize()} were cut at {limit} tokens."
    if cut == len(lengths):
        notes.problem(
            finding + " None ended by itself.",
            "Raise rollout.max_completion_length, or see why they do not end (the check of "
            "endings); a cut answer is rarely right, and a base model may need rollout.stop.",
        )
    elif cut > MANY * len(lengths):
        notes.warn(
            finding,
            "Raise rollout.max_completion_length: what is cut teaches little but to be short.",
        )
    else:
        notes.fine(finding)
    return notes.result()
