"""A patient that nothing is wrong with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlkit.composition.doctor.patient import Patient
from rlkit.composition.session import close
from tests.compositions import composed


@pytest.fixture(scope="session")
def healthy() -> Iterator[Patient]:
    """The embedded model with ReMix; what it loads is shared."""
    patient = Patient(composed("model.device=cpu"), 60.0)
    yield patient
    close(patient.c)
