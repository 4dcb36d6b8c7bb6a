"""Does the engine sample from the policy that is trained?

Samples are drawn from the policy if, token by token, their surprise -log p is the entropy of the
policy on average: the differences are of mean 0 given all tokens before, whatever the lengths. An
engine that reads a temperature, top_p or top_k from somewhere else is off by far more than chance.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from rlkit.composition.doctor.check import Check, Notes
from rlkit.composition.doctor.patient import Patient

NAME = "sampling"
READ = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What a generation config may set."""
PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
SIGMAS, SMALLEST, LEAST = 6.0, 0.02, 50
"""A difference counts from so many standard errors, nats per token and tokens on."""


def check(patient: Patient) -> Check:
    """The settings, and whether the samples bear them out."""
    notes, config = Notes(NAME), patient.engine.config
    limits = f", top_p {config.top_p:g}, top_k {config.top_k}" if config.truncates else ""
    notes.fine(f"Temperature {config.temperature:g}{limits}.")
    if config.truncates:
        notes.warn(
            "Samples come from a truncated policy, but log-probs and ratios are the full policy's.",
            "Set rollout.top_p=1 and rollout.top_k=0, or accept the bias.",
        )
    if ignored := other_settings(patient.policy.model, config.temperature):
        notes.fine(f"The model's generation config has {ignored}, which no run of rlkit reads.")
    if not config.truncates:
        check_surprise(notes, patient)
    return notes.result()


def other_settings(model: Any, temperature: float) -> str:
    """What a model's generation config says otherwise, in words."""
    config = getattr(model, "generation_config", None)
    plain = {**PLAIN, "temperature": temperature}
    given = {name: getattr(config, name, None) for name in READ}
    if given["top_k"] == 50 and not getattr(config, "do_sample", False):
        given["top_k"] = None  # the default of transformers
    differ = {n: v for n, v in given.items() if v is not None and v != plain[n]}
    return ", ".join(f"{name}={value:g}" for name, value in differ.items())


def check_surprise(notes: Notes, patient: Patient) -> None:
    """Compare surprise and entropy, in nats per token."""
    scored = patient.scored
    mask = scored.mask
    mean, error = excess(scored.own.logp[mask], scored.own.entropy[mask])
    notes.figures |= {"surprise_minus_entropy": mean, "standard_error": error}
    if int(mask.sum()) < LEAST:
        return
    if abs(mean) <= max(SMALLEST, SIGMAS * error):
        notes.fine(
            "The samples are as surprising as a sample of the policy should be (surprise less "
            f"entropy {mean:+.3f} nats per token, standard error {error:.3f})."
        )
        return
    how = "sharper: a lower temperature, top_p, top_k or greedy decoding" if mean < 0 else "flatter"
    notes.problem(
        f"The samples are not drawn from the policy: they are {abs(mean):.3f} nats per token "
        f"{'less' if mean < 0 else 'more'} surprising than its entropy (standard error "
        f"{error:.3f}), so the engine samples {how}.",
        "Find the engine's own sampling settings (for a server of your own, often the model's "
        "generation_config.json) and set them to the run's.",
    )


def excess(logp: Tensor, entropy: Tensor) -> tuple[float, float]:
    """The mean of -logp - entropy over tokens [n] in nats, and its standard error."""
    surplus = (-logp - entropy).double()
    if len(surplus) < 2:
        return 0.0, math.inf
    return float(surplus.mean()), float(surplus.std()) / math.sqrt(len(surplus))
