"""Where the model is that a run begins with."""

from __future__ import annotations

from rlkit.composition.composition import Composition
from rlkit.config.run import EMBEDDED


def model_folder(c: Composition) -> str:
    """The name or folder of the model; the embedded one is made on first use."""
    if c.config.model.name != EMBEDDED:
        return c.config.model.name
    from rlkit.models.embedded import embedded_model_dir

    return str(embedded_model_dir(c.config.model.base_seed))
