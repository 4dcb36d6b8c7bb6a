"""Is a training step with learning rate 0 what it must be: ratio 1, a gradient, no change?"""

from __future__ import annotations

import math

from rlkit.composition.doctor.check import Check, Notes
from rlkit.composition.doctor.mismatch import allowed
from rlkit.composition.doctor.patient import Patient
from rlkit.composition.doctor.trial_step import TrialStep

NAME = "step at rate 0"


def check(patient: Patient) -> Check:
    """Generated, prepared and trained on as in the first step of a run."""
    notes, step = Notes(NAME), patient.step
    metrics = step.result.metrics
    bound = allowed(patient, patient.scored)
    ratio_off = max(abs(metrics.get(f"policy/ratio_{k}", 1.0) - 1) for k in ("mean", "max"))
    clipped = metrics.get("policy/clip_fraction", 0.0)
    off = max(step.log_ratio, math.log1p(ratio_off))
    notes.figures |= {
        "log_ratio": step.log_ratio,
        "ratio_off": ratio_off,
        "clip_fraction": clipped,
        "loss": metrics.get("policy/loss", math.nan),
        "grad_norm": metrics.get("policy/grad_norm", math.nan),
        "changed": len(step.changed),
    }
    size = f"{len(step.batch.samples)} fresh responses"
    if off <= bound:
        notes.fine(f"On {size} the ratio is 1 (largest |log ratio| {off:.1g}).")
    else:
        notes.problem(
            f"On {size} the largest |log ratio| is {off:.2g}, and rounding explains {bound:.2g}: "
            "fresh data look off-policy.",
            "See the check of log-probs; if engine and trainer agree there, a loss of your own "
            "divides by the wrong policy.",
        )
    if clipped > 0 and off <= bound:
        notes.problem(
            f"{clipped:.1%} of the tokens are clipped, though all ratios are 1.",
            "Check the clip bounds of the loss (rlkit show loss <name>).",
        )
    if step.made_up:
        notes.fine("All rewards were equal, so 0 and 1 in turn were taken in their place.")
    check_gradient(notes, patient, step)
    if step.changed:
        notes.problem(
            f"{len(step.changed)} weights changed, the first {step.changed[0]}.",
            "Nothing but the optimizer may change weights: look at parts of your own.",
        )
    else:
        notes.fine("No weight changed.")
    return notes.result()


def check_gradient(notes: Notes, patient: Patient, step: TrialStep) -> None:
    """The loss and the gradient are finite, and the gradient is not 0 if something differs."""
    metrics = step.result.metrics
    if metrics.get("policy/skipped_steps"):
        notes.problem(
            f"The loss or the gradient of {metrics['policy/skipped_steps']:.0f} optimizer steps is "
            "not finite.",
            "Look at a loss of your own (rlkit check), or at log-probs of -inf.",
        )
        return
    loss, norm = metrics["policy/loss"], metrics["policy/grad_norm"]
    finding = f"Loss {loss:.3g}, gradient norm {norm:.3g}"
    if norm > 0:
        limit = patient.c.config.train.max_grad_norm
        notes.fine(finding + (f", clipped to {limit:g}." if norm > limit else "."))
    elif not step.batch.loss.advantage.any():
        notes.warn(
            finding + ": all advantages are 0, so there is nothing to learn.",
            "See the check of groups; an advantage of your own may give 0.",
        )
    else:
        notes.problem(
            finding + ", though advantages are not 0.",
            "Is the model frozen, or does the loss detach the log-probs it reads?",
        )
