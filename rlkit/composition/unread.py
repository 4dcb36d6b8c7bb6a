"""Settings that a run was given and that nothing in it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rlkit.composition.composition import Composition
from rlkit.config.overrides import key_of
from rlkit.config.revisits import BehaviorSettings, DraftSettings
from rlkit.interfaces import AnchorConfig
from rlkit.runs.resume import covers


class Condition(NamedTuple):
    """When a setting, or a section of them, is read."""

    key: str
    holds: Callable[[Composition], bool]
    words: str
    """What a run needs for it."""


def _evaluates_benchmarks(c: Composition) -> bool:
    return bool(c.config.eval.on)


def _is_async(c: Composition) -> bool:
    return bool(c.engine.config.mode == "async")


def _penalizes(c: Composition) -> bool:
    """Whether the anchor has a reference to penalize by, at the run's beginning or end."""
    return any(c.parts.anchor.weights(step) for step in (1, c.config.train.steps))


def _generates(c: Composition) -> bool:
    return c.buffer.fresh_share(c.config.train.prompts_per_step) > 0


def _each(
    section: str, keys: Iterable[str], holds: Callable[[Composition], bool], words: str
) -> list[Condition]:
    """The same condition for several keys of a section."""
    return [Condition(f"{section}.{key}", holds, words) for key in keys]


CONDITIONS = (
    Condition(
        "train.critic_learning_rate",
        lambda c: c.parts.advantage.needs_critic,
        "an advantage that has a critic",
    ),
    *_each(
        "train",
        ("adam_beta1", "adam_beta2"),
        lambda c: c.config.train.optimizer != "adafactor",
        "an optimizer with Adam's moments",
    ),
    *_each("rollout", ("max_staleness", "deterministic"), _is_async, "rollout.mode=async"),
    Condition("rollout.num_generations", _generates, "a buffer that generates"),
    Condition(
        "rollout.round_tokens",
        lambda c: c.engine.config.oversample > 0,
        "rollout.oversample above 0",
    ),
    *_each(
        "rollout",
        DraftSettings.model_fields.keys() - {"draft"},
        lambda c: c.engine.config.draft != "none",
        "rollout.draft=spec_rl",
    ),
    *_each(
        "rollout",
        BehaviorSettings.model_fields.keys() - {"behavior"},
        lambda c: c.engine.config.behavior != "policy",
        "rollout.behavior=props",
    ),
    *_each(
        "anchor",
        AnchorConfig.model_fields.keys() - {"device", "horizon"},
        _penalizes,
        "an anchor with a penalty, such as anchor=base",
    ),
    Condition(
        "anchor.horizon",
        lambda c: c.parts.anchor.config.target_kl is not None,
        "an anchor.target_kl",
    ),
    Condition(
        "prompts.target", lambda c: c.config.prompts.order == "target", "prompts.order=target"
    ),
    Condition("turns", lambda c: c.environment is not None, "environment=... or tools=[...]"),
    *_each(
        "model.lora",
        ("alpha", "dropout", "target_modules"),
        lambda c: c.config.model.lora.r > 0,
        "model.lora.r above 0",
    ),
    Condition(
        "loss.norm_length",
        lambda c: c.parts.loss.config.aggregation.endswith("-norm"),
        "a loss.aggregation that ends in -norm",
    ),
    *_each(
        "eval",
        ("template", "on_samples", "on_problems", "data", "key"),
        _evaluates_benchmarks,
        "eval.on=[...]",
    ),
)


def unread(parts: Sequence[Composition], overrides: Sequence[str]) -> list[str]:
    """A warning for each setting given on the command line that no stage of the run reads."""
    lines = []
    for given in dict.fromkeys(map(key_of, overrides)):
        for condition in CONDITIONS:
            if covers(condition.key, given) and not any(map(condition.holds, parts)):
                lines.append(f"Warning: {given} has no effect here: it needs {condition.words}.")
    return lines
