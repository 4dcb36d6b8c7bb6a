"""What every part is: a frozen config and a class that holds it."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Generic

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

State = dict[str, Any]
"""Nested dicts and lists of tensors, numbers, strings, booleans and None: what a checkpoint can
hold without pickle."""


class PartConfig(BaseModel):
    """Settings of a part: frozen, unknown keys refused.

    Every field has a default, a bound and a docstring.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let a subclass that restates only a default keep the field's docstring."""
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, own in cls.__pydantic_fields__.items() if not own.description]
        for name in bare:
            for base in cls.__mro__[1:]:
                parent = getattr(base, "__pydantic_fields__", {}).get(name)
                if parent is not None and parent.description:
                    cls.__pydantic_fields__[name].description = parent.description
                    break
        if bare:
            cls.model_rebuild(force=True)


C = TypeVar("C", bound=PartConfig, default=PartConfig)


class Part(ABC, Generic[C]):
    """Anything the registry can build.

    It holds its config and, if it has memory, gives and takes its state.
    """

    Config: ClassVar[type[PartConfig]] = PartConfig
    sources: ClassVar[tuple[str, ...]] = ()
    """The arXiv ids of the papers that define it, the first first; empty if there is none."""
    config: C

    def __init__(self, config: C | None = None) -> None:
        self.config = self.Config() if config is None else config  # type: ignore[assignment]

    def state_dict(self) -> State:
        """Everything the next step reads and the config does not hold; {} if stateless."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
