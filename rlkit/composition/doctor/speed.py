"""How long does a step of the run take on this machine, and the whole run?"""

from __future__ import annotations

from rlkit.composition.budget import entries
from rlkit.composition.doctor.check import Check, Notes, duration
from rlkit.composition.doctor.patient import Patient, Unavailable
from rlkit.errors import UserError

NAME = "speed"


def check(patient: Patient) -> Check:
    """Scale what was measured here up to a step, the run and its evaluations."""
    notes, c, answers = Notes(NAME), patient.c, patient.answers
    generating = answers.tokens / answers.seconds
    mean = answers.tokens / len(answers.flat)
    train, n = c.config.train, c.engine.config.num_generations
    fresh = c.buffer.fresh_share(train.prompts_per_step) * n
    seconds = {"generating": fresh * mean / generating}
    words = (
        f"Generates {generating:.0f} tokens per second with {len(answers.flat)} responses at once"
    )
    try:
        step = patient.step
    except (Unavailable, UserError):
        step = None
    if step is not None:
        scale = train.prompts_per_step * n / len(step.batch.samples)
        passes = train.updates_per_batch
        seconds["training"] = scale * (step.prepare_seconds + passes * step.update_seconds)
        per_second = step.tokens / (step.prepare_seconds + step.update_seconds)
        words += f", trains {per_second:.0f}"
        notes.figures |= {"trained_tokens_per_second": per_second}
    a_step = sum(seconds.values())
    responses = list(entries([c]))[-1].responses
    parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    evaluations = 2 + (train.steps // c.config.eval.every if c.config.eval.every else 0)
    problems = min(c.config.eval.problems, len(c.rows[1]))
    evaluating = problems * (c.config.eval.samples + 1) * mean / generating
    run = responses * mean / generating + train.steps * (a_step - seconds["generating"])
    run += evaluations * evaluating
    notes.fine(
        f"{words}. A step of {train.prompts_per_step * n} responses, {fresh} of them new, takes "
        f"about {duration(a_step)} ({parts}); {train.steps} steps and their evaluations of "
        f"{duration(evaluating)} about {duration(run)}, if responses have {mean:.0f} tokens as "
        "here. Larger batches are faster."
    )
    notes.figures |= {
        "generated_tokens_per_second": generating,
        "seconds_per_step": a_step,
        "seconds_per_evaluation": evaluating,
        "seconds_per_run": run,
    }
    return notes.result()
