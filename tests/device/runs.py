"""Tiny runs on the pretend device or a GPU: any composition, in this process, without Hydra."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from rlkit.composition.catalog_file import catalog
from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition, Given
from rlkit.composition.config_files import configs_folder
from rlkit.composition.session import RunScope, close, open_session
from rlkit.models.policy import Policy
from rlkit.plugins import LIST_KINDS
from rlkit.registry import build
from rlkit.rewards.function import reward_class
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.remote import RemoteEngine
from rlkit.training.trainer import Trainer
from tests.compositions import raw_of
from tests.tiny import make_policy

Raw = dict[str, Any]
SMALL: Raw = {
    "model": {"device": "cuda"},
    "train": {"steps": 1, "prompts_per_step": 2, "minibatches": 1, "micro_batch_tokens": 65},
    "rollout": {"max_completion_length": 3},
    "eval": {"problems": 1, "every": None},
    "checkpoint": {"every": None},
}
"""One minibatch of two micro-batches."""


def merged(raw: Raw, changes: Mapping[str, Any]) -> Raw:
    """Nested dicts, with changes."""
    out = dict(raw)
    for key, value in changes.items():
        inside = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if inside else value
    return out


def node_of(kind: str, name: str) -> Raw:
    """The section of a part, or of a variant of it in configs/<kind>."""
    path = configs_folder() / kind / f"{name}.yaml"
    if not path.is_file():
        return dict(catalog().parts[kind][name].node)
    settings = yaml.safe_load(path.read_text())
    (base,) = settings.pop("defaults")
    return merged(node_of(kind, base), settings)


def sections_of(kind: str, chosen: str | Sequence[str]) -> Raw:
    """The sections that `kind=<chosen>` gives."""
    if kind in LIST_KINDS:
        return {kind: {name: node_of(kind, name) for name in chosen}}
    assert isinstance(chosen, str)
    return {kind: node_of(kind, chosen)}


@cache
def defaults() -> Raw:
    """Every setting of a run, from Hydra once."""
    raw: Raw = raw_of("algorithm=grpo")
    return raw


def algorithm(name: str) -> tuple[Raw, Raw]:
    """The sections of the parts that a composition chooses, and its settings."""
    settings = yaml.safe_load((configs_folder() / "algorithm" / f"{name}.yaml").read_text())
    sections: Raw = {}
    for choice in settings.pop("defaults"):
        if isinstance(choice, str):
            return algorithm(choice)
        ((key, value),) = choice.items()
        sections |= sections_of(key.removeprefix("override /"), value)
    return sections, settings


def raw_like(name: str, **chosen: str | Sequence[str]) -> Raw:
    """What `algorithm=<name> kind=<chosen> ...` composes, without what is tuned for a task."""
    sections, settings = algorithm(name)
    for kind, value in chosen.items():
        sections |= sections_of(kind, value)
    return merged({**defaults(), **sections}, settings)


def parity(completions: Sequence[str], **_: object) -> list[float]:
    """Rewards that differ inside a group."""
    return [float(sum(map(ord, text)) % 2) for text in completions]


class Near(RemoteEngine):
    """An engine on a copy of the policy that answers at once, in this process."""

    def start(self, policy: Policy, seed: int) -> None:
        self.policy, self.number = policy, 0
        self.arrived: dict[int, list[list[Generation]]] = {}
        self.copy = policy.at(policy.temperature)
        self.copy.model = policy.freeze().model
        self.inner.start(self.copy, seed)

    def sync(self, step: int) -> None:
        self.copy.model.load_state_dict(self.policy.weights())
        self.inner.sync(step)

    def submit(self, call: GenerationCall) -> int:
        self.number += 1
        self.arrived[self.number] = self.inner.generate(call)
        return self.number

    def close(self) -> None:
        pass


def small_composition(raw: Raw) -> Composition:
    """The composition of a small run, with rewards that differ and every engine in this process."""
    layers = 2 if raw["rollout"]["name"] == "layer_skip" else 1
    attention = raw["model"]["attn_implementation"] or "eager"
    policy = make_policy(attn_implementation=attention, num_hidden_layers=layers)
    made = compose(raw, given=Given(model=policy.model, tokenizer=policy.tokenizer))
    if isinstance(made.rollouts, RemoteEngine):
        near = Near(made.engine, raw["rollout"]["name"], made.config.model, ())
        made = replace(made, rollouts=near)
    reward = {"parity": reward_class(parity)()}
    return replace(made, rewards=reward, eval_rewards=reward, trackers={})


def small(raw: Raw, changes: Mapping[str, Any]) -> Raw:
    """The settings of a small run: groups of 4 or, where a composition wants one response, 1."""
    responses = min(4, int(raw["rollout"]["num_generations"]))
    out = merged(merged(raw, SMALL), {"rollout": {"num_generations": responses}})
    if build("buffer", raw["buffer"]["name"]).gives_expert:  # demonstrations have 12 tokens
        out = merged(out, {"rollout": {"max_completion_length": 12}})
    return merged(out, changes)


def pretend() -> AbstractContextManager[Any]:
    """The pretend device, imported only here: a process that has it cannot use CUDA."""
    from tests.device.pretend import pretending

    return pretending()


@contextmanager
def small_run(
    raw: Raw,
    folder: Path,
    changes: Mapping[str, Any] = MappingProxyType({}),
    checkpoint: Path | None = None,
    device: Callable[[], AbstractContextManager[Any]] | None = None,
) -> Generator[tuple[Trainer, Any]]:
    """A trainer at its start, with these settings changed; the device exists in this context."""
    with (device or pretend)() as pretence:
        made = small_composition(small(raw, {"output_dir": str(folder), **changes}))
        scope = RunScope.of(made)
        scope.folder.open(made.raw, [], {}, 0)
        try:
            yield Trainer(open_session(made, scope, checkpoint)), pretence
        finally:
            close(made)


def train(trainer: Trainer, steps: int = 1) -> None:
    """Take steps, without evaluations and checkpoints."""
    trainer.parts.anchor.rebase(trainer.session.policy)
    trainer.count.eval = {"eval/pass@1": 0.0}
    for step in range(1, steps + 1):
        metrics = trainer._train_step(step)
        trainer.count.step, trainer.count.metrics = step, metrics


def take_steps(
    run: AbstractContextManager[tuple[Trainer, Any]],
    check: Callable[[Trainer], None],
    steps: int = 1,
) -> Mapping[str, float]:
    """The metrics of a run's last step; its state can be taken then, and `check` passes."""
    with run as (trainer, _):
        train(trainer, steps)
        trainer.state.state_dict()
        check(trainer)
        return trainer.count.metrics
