"""Do the responses to a prompt differ in reward, so that there is something to learn?"""

from __future__ import annotations

from rlkit.composition.doctor.check import Check, Notes, share
from rlkit.composition.doctor.patient import Patient
from rlkit.rewards.judges import FULL_MARKS

NAME = "groups"
MANY = 0.75
"""A share of groups with equal rewards from which on it is a warning."""


def check(patient: Patient) -> Check:
    """The share of groups whose rewards are all equal."""
    notes, groups = Notes(NAME), patient.collected.groups
    rewards = [[s.reward for s in group.samples] for group in groups]
    every = [reward for group in rewards for reward in group]
    if not every:
        notes.problem(
            "No response got a reward: every reward returned None.",
            "Choose a reward that applies to this task.",
        )
        return notes.result()
    equal = [group for group in rewards if len(set(group)) == 1]
    right = sum(group[0] >= FULL_MARKS for group in equal)
    mean = sum(every) / len(every)
    notes.figures |= {"groups": len(groups), "equal": len(equal), "reward_mean": mean}
    size = len(rewards[0])
    finding = (
        f"The mean reward of {len(every)} responses is {mean:.3g}; all rewards are equal in "
        f"{share(len(equal), len(groups))} groups of {size}"
        + (f" ({right} of them all right)." if equal else ".")
    )
    longest = patient.c.engine.config.max_completion_length
    if patient.c.parts.advantage.min_group < 2:
        notes.fine(finding + " This advantage does not compare them.")
    elif len(equal) == len(groups) and patient.answers.limit < longest:
        notes.warn(
            f"{finding} Responses were cut at {patient.answers.limit} tokens for lack of time.",
            "Try again with more --seconds.",
        )
    elif len(equal) == len(groups):
        notes.problem(
            finding + " There is nothing to learn from.",
            "See whether the problems are too hard or too easy, the responses are cut, or the "
            "reward reads another form; more responses (rollout.num_generations) help if some "
            "are right.",
        )
    elif len(equal) >= MANY * len(groups):
        notes.warn(
            finding + " They give no gradient.",
            "Take problems of which the model solves some, raise rollout.num_generations, or a "
            "buffer that leaves such groups out.",
        )
    else:
        notes.fine(finding)
    return notes.result()
