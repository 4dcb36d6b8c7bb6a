"""Models beside the policy that a part names in its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A frozen model that a part asks the run for."""

    path: str | None
    """A Hugging Face name or a folder; None = the policy itself as it is when training starts."""
    setting: str
    """What messages call the setting that names it."""
    dtype: str | None = None
    """dtype of its weights and forwards; None = the policy's."""
    device: str | None = None
    """Where it is kept; None = on the policy's device. On the CPU its layers visit that device."""


class FixedModel(Protocol):
    """A model that never changes and reads the policy's tokens."""

    number: int
    """The same for the same weights, temperature and dtype, and for no others."""

    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token at `rollout.temperature`: [B, T] float32, no gradient."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its weights."""
        ...


def no_model(source: ModelSource) -> FixedModel | None:
    """The model of a part that no run has opened: only the policy itself, None."""
    if source.path is None:
        return None
    raise UserError(f"{source.path} is loaded when a run opens the part, and no run has")
