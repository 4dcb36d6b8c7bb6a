"""All checks, one after the other; none stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rlkit.composition.doctor import (
    data,
    endings,
    gold,
    groups,
    lengths,
    loading,
    memory,
    mismatch,
    prompts,
    settings,
    speed,
    still_step,
    template,
)
from rlkit.composition.doctor.check import Check
from rlkit.composition.doctor.patient import Patient, Unavailable
from rlkit.errors import UserError
from rlkit.models.memory import ELSEWHERE, explained

CHECKS: Sequence[tuple[str, Callable[[Patient], Check]]] = tuple(
    (module.NAME, module.check)
    for module in (
        *(data, loading, prompts, template, gold),
        *(mismatch, settings, endings, lengths, groups),
        *(memory, still_step, speed),
    )
)


def examine(patient: Patient) -> Iterator[Check]:
    """The result of each check, as soon as it is there."""
    for name, check in CHECKS:
        yield one(name, check, patient)


def one(name: str, check: Callable[[Patient], Check], patient: Patient) -> Check:
    """A check's result. What it raises is a problem; what another check has told of, a warning."""
    try:
        with explained(ELSEWHERE):
            return check(patient)
    except Unavailable as error:
        return Check(
            name=name,
            verdict="warning",
            finding=f"Not checked: {error}.",
        )
    except UserError as error:
        return Check(name=name, verdict="problem", finding=f"{' '.join(str(error).split())}.")
    except Exception as error:
        message = " ".join(str(error).split())
        return Check(
            name=name,
            verdict="problem",
            finding=f"{type(error).__name__}: {message}",
            advice="RLKIT_DEBUG=1 shows where.",
        )
