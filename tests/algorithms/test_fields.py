"""Every setting of a loss, advantage or correction is read by the code: none is for show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import isfunction
from types import MethodType
from typing import Any

import pytest
import torch

from rlkit.batch import Group, PolicyTerms
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build, entry, names
from rlkit.testing import advantages
from rlkit.testing.buffers import FakePrompts, FakeRollouts
from rlkit.testing.losses import examples


class Reads:
    """A config that remembers which of its fields were read."""

    def __init__(self, config: Any, seen: set[str]) -> None:
        self._config, self._seen = config, seen

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self._config), name, None)
        if isfunction(method):
            return MethodType(method, self)
        if isinstance(method, property) and method.fget is not None:
            return method.fget(self)
        self._seen.add(name)
        return getattr(self._config, name)


WITHOUT_A_RATIO = ("asymre", "gpg", "reinforce", "sft")
"""Losses for which the clamp every loss has is without effect."""


def alternatives(schema: dict[str, Any]) -> list[Any]:
    """Other values of a field, by its JSON schema: each choice, both truths, none and one."""
    if "anyOf" in schema:
        return [value for option in schema["anyOf"] for value in alternatives(option)]
    if schema.get("type") == "null":
        return [None]
    if schema.get("type") == "boolean":
        return [True, False]
    if "const" in schema:
        return [schema["const"]]
    if schema.get("type") in ("number", "integer"):
        return [max(1, schema.get("minimum", 1))]
    return list(schema.get("enum", []))


def variants(kind: str, name: str) -> Iterator[Any]:
    """The part as it is, and with each field changed, and with each pair of choices."""
    yield build(kind, name)
    fields = entry(kind, name).config.model_json_schema()["properties"]
    choices = [(f, value) for f, schema in fields.items() for value in alternatives(schema)]
    words = [(f, v) for f, v in choices if isinstance(v, str | bool)]
    for change in [
        *({f: v} for f, v in choices),
        *({f: v, g: w} for f, v in choices for g, w in words if f != g),
    ]:
        try:
            yield build(kind, name, **change)
        except UserError:
            continue


def use(kind: str, part: Any) -> None:
    """Run the part as the framework does."""
    if kind == "advantage":
        part.begin(groups_of_the_examples(), lambda samples, prompts: {})
        part(advantages.examples(part.needs))
        if part.needs_critic:
            part.value_loss(*torch.rand(3, 4, 5)), part.critic_sees_age
        return
    logp, batch = examples(part.needs)
    batch = replace(batch, expert=torch.arange(8) % 4 == 0, truncated=torch.arange(8) % 3 == 0)
    policy = PolicyTerms(logp=logp, entropy=torch.full_like(logp, 0.5))
    if kind == "correction":
        part(policy, batch), part.terms(policy, batch)
    else:
        part.modules(4), loss_value(part, logp, batch)


def groups_of_the_examples() -> list[Group]:
    """Two groups of four responses."""
    prompts, rollouts = FakePrompts(num_generations=4), FakeRollouts()
    return [rollouts.group(prompt, 4, 1) for prompt in prompts.take(2)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("loss", "advantage", "correction") for name in names(kind)],
)
def test_every_field_is_read(kind: str, name: str) -> None:
    fields = set(entry(kind, name).config.model_fields)
    fields -= {"log_ratio_clamp"} if name in WITHOUT_A_RATIO else set()
    seen: set[str] = set()
    for part in variants(kind, name):
        part.config = Reads(part.config, seen)
        use(kind, part)
        if seen >= fields:
            return
    pytest.fail(f"{kind}={name} never reads {sorted(fields - seen)}")
