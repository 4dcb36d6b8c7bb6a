"""How an evaluation samples, apart from training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.interfaces import PartConfig


class Sampling(PartConfig):
    """Settings of a sampler in place of the engine's own; null = as in `rollout`."""

    temperature: Annotated[float, Field(gt=0)] | None = None
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus mass kept; 1 = off."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Most probable tokens kept; 0 = all."""
    max_completion_length: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of a response."""

    @property
    def given(self) -> dict[str, float | int]:
        """The settings that differ from the engine's own, by their names there."""
        return self.model_dump(exclude_none=True)
