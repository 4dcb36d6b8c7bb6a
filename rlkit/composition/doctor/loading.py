"""Does the model load, and can it be trained?"""

from __future__ import annotations

from rlkit.composition.doctor.check import Check, Notes, duration
from rlkit.composition.doctor.patient import Patient
from rlkit.models.lora import has_adapter

NAME = "model"


def check(patient: Patient) -> Check:
    """Load it as a run does, which tries that padding does not change its log-probs."""
    notes, policy = Notes(NAME), patient.policy
    every = sum(p.numel() for p in policy.model.parameters())
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    dtype = str(policy.model.dtype).removeprefix("torch.")
    adapted = f", {count(trained)} of them in adapters" if has_adapter(policy.model) else ""
    notes.fine(
        f"{type(policy.model).__name__} with {count(every)} parameters{adapted} in {dtype} on "
        f"{policy.device}, loaded and probed in {duration(patient.took['the model'])}. Padding "
        f"does not change its log-probs; its forwards are laid out as {policy.layout}."
    )
    for line in patient.notes:
        if not line.startswith("Loading "):
            notes.fine(line)
    if every != trained and not has_adapter(policy.model):
        notes.warn(
            f"{count(every - trained)} parameters are frozen.",
            "Check that the model was saved with them trainable.",
        )
    notes.figures |= {"parameters": every, "trained": trained, "dtype": dtype}
    return notes.result()


def count(number: int) -> str:
    """A number of parameters in words: "134.5 million"."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:,}"
