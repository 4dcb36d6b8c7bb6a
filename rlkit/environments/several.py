"""Several registered environments in one run, each with its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlkit.environments.mixed import Mixed
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig
from rlkit.registry import build_section, register


class SeveralConfig(PartConfig):
    """Which they are."""

    of: dict[str, dict[str, Any]] | None = None
    """Their names, with what is set of each: {python: {time_limit: 5}, calculator: {}}. The column
    `environment` of a row names one of them."""


@register("environment", "several")
class Several(Mixed):
    """The environments that `environment=[a,b]` names; a row's column `environment` says which."""

    Config: ClassVar[type[PartConfig]] = SeveralConfig

    def __init__(self, config: SeveralConfig | None = None) -> None:
        config = config or SeveralConfig()
        super().__init__(
            {
                name: build_section("environment", name, dict(fields), f"environment.of.{name}")
                for name, fields in (config.of or {}).items()
            }
        )
        self.config = config

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError if there are none of them, or a row names none."""
        if not self.environments:
            raise UserError("environment=several needs names: write environment=[<name>,<name>]")
        super().check(rows)
