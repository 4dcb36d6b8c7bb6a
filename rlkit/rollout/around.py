"""What stands around a run's engine because of earlier responses to the same prompts."""

from __future__ import annotations

from typing import Any

from rlkit.rollout.base import RolloutEngine
from rlkit.rollout.props import Props
from rlkit.rollout.spec_rl import SpecRL


def around(engine: RolloutEngine[Any]) -> RolloutEngine[Any]:
    """The engine with drafts or a behavior adapter around it, if its settings ask for them.

    They stand around the engine that the ranks share, so that every rank holds every response.
    """
    if engine.config.draft != "none":
        return SpecRL(engine)
    if engine.config.behavior != "policy":
        return Props(engine)
    return engine
