"""A run described in words, and where each of its parts comes from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import rlkit
from rlkit.composition.composition import Composition
from rlkit.composition.penalties import penalty_in_words
from rlkit.composition.turns import words_of
from rlkit.errors import counted
from rlkit.interfaces import RunSize
from rlkit.plugins import FROM_FILE, LIST_KINDS, SINGLE_KINDS, SOURCES, import_plugin
from rlkit.training.held_state import OURS, is_ours


def describe(c: Composition) -> list[str]:
    """The run described in words: its parts and its batch arithmetic."""
    train, rollout = c.config.train, c.engine.config
    groups = train.prompts_per_step
    names = {kind: c.raw[kind]["name"] for kind in SINGLE_KINDS}
    names |= {kind: "+".join(c.raw[kind]) for kind in LIST_KINDS if c.raw.get(kind)}
    lines = [
        "  ".join(f"{kind}={name}" for kind, name in names.items()),
        batch_in_words(c),
        f"It takes {train.updates_per_batch} x {train.minibatches} = "
        f"{counted(train.updates_per_batch * train.minibatches, 'optimizer step')} "
        f"on {counted(groups // train.minibatches, 'group')} each; "
        f"{counted(train.steps, 'training step')} in all.",
    ]
    lines += [f"Warning: {line}." for line in unsuited(c, names)]
    lines += penalty_in_words(c)
    if len(c.eval_rewards) > 1:
        lines.append(f"Evaluation counts a response as right by the reward {c.judges.words}.")
    lines += words_of(c)
    for each in c.benchmarks:
        lines += [each.words, *each.problems.notes]
    lines += prompts_in_words(c)
    lines += [note for reward in c.named_rewards.values() for note in reward.notes()]
    for place, scalar in c.scalars.items():
        settings = scalar.model_dump()
        shape = settings.pop("kind")
        words = ", ".join(f"{key}={value}" for key, value in settings.items())
        lines.append(f"{place} follows a schedule: {shape} ({words}).")
    if rollout.truncates:
        lines.append(
            f"Warning: top_p={rollout.top_p}, top_k={rollout.top_k} samples from a truncated "
            "policy, but log-probs and ratios are the full policy's; "
            "the kept mass is stored with each token, but the bias is not corrected."
        )
    return lines


def unsuited(c: Composition, names: Mapping[str, str]) -> Iterator[str]:
    """What hardly suits the run: its length, or parts that go with others than it has."""
    train, wanted = c.config.train, c.parts.loss.advantages
    if train.warmup_steps > train.steps:
        yield (
            f"train.warmup_steps={train.warmup_steps} is more than the run's "
            f"{counted(train.steps, 'step')}: the learning rate is never reached"
        )
    if wanted and names["advantage"] not in wanted:
        yield (
            f"loss={names['loss']} has its own baseline and is defined with "
            f"advantage={' or '.join(wanted)}, not with advantage={names['advantage']}"
        )
    if uncorrected(c):
        remedy = "set loss.ratio_to=behavior" if has_ratio(c) else "choose another loss"
        yield (
            f"loss={names['loss']} takes its ratio to the policy of the step, so nothing corrects "
            f"for older ones that sampled the replayed responses; {remedy}, or correction=[tis]"
        )
    if c.parts.anchor.proximal is not None and c.parts.proximal is None:
        yield (
            f"anchor={names['anchor']} keeps a policy that takes the place of prox_logp, which no "
            "part of this run reads"
        )
    size = RunSize(
        steps=train.steps,
        groups=train.prompts_per_step,
        num_generations=c.engine.config.num_generations,
    )
    for kind in ("buffer", "anchor", "schedule"):
        if (missed := c.every_part[kind].out_of_reach(size)) is not None:
            yield f"{kind}={names[kind]}: {missed}"


def uncorrected(c: Composition) -> bool:
    """Whether responses of other policies are trained on as if the step's had sampled them."""
    if not c.buffer.replays(c.config.train.prompts_per_step) or c.parts.loss.off_policy:
        return False
    return c.parts.needs("prox") and not c.parts.needs("behavior")


def has_ratio(c: Composition) -> bool:
    """Whether the loss can take its ratio to the policy that sampled."""
    return "ratio_to" in type(c.parts.loss.config).model_fields


def batch_in_words(c: Composition) -> str:
    """What a step trains, and how much of it the run generates."""
    n, groups = c.engine.config.num_generations, c.config.train.prompts_per_step
    fresh = c.buffer.fresh_share(groups)
    if fresh == 0:
        return f"A step trains {counted(groups, 'group')} and generates nothing."
    if c.buffer.gives_expert:
        return (
            f"A step trains {groups} groups, {fresh} of them with new responses (at most {n} "
            "generated for each), and demonstrations."
        )
    rest = f" and up to {groups - fresh} replayed" if fresh < groups else ""
    return (
        f"A step trains {groups} groups of {n} = {groups * n} responses, {fresh} of them fresh "
        f"({fresh * n} generated){rest}."
    )


def prompts_in_words(c: Composition) -> list[str]:
    """The tasks of a mix, and how old what prompts are chosen by may be."""
    lines, mix = [], c.task.mix
    if mix:
        each = (f"{name} {weight / sum(mix.values()):.0%}" for name, weight in mix.items())
        lines.append(f"Shares of the prompts: {', '.join(each)}.")
    ahead = c.engine.config.steps_ahead
    if c.config.prompts.reads_pass_rates and ahead:
        lines.append(
            f"rollout.mode={c.engine.config.mode} asks for responses up to {ahead} steps early: "
            f"prompts are chosen by pass rates that lack the last {ahead} steps."
        )
    return lines


def components(c: Composition) -> dict[str, Any]:
    """Where each part comes from.

    For each: import path, version of its distribution, hash of its source, settings.
    """
    out = {}
    for section, part in c.every_part.items():
        cls = type(part)
        kind, _, label = section.partition(".")
        out[section] = {
            "name": label or (c.raw.get(kind) or {}).get("name", cls.__name__),
            "import_path": f"{cls.__module__}:{cls.__qualname__}",
            "version": _version(cls.__module__.partition(".")[0]),
            "source_sha256": hashlib.sha256(source_of(cls)).hexdigest(),
            "config": part.config.model_dump(mode="json"),
        }
    return out


def user_sources(compositions: Sequence[Composition]) -> dict[str, str]:
    """The modules of a user's plug-ins and parts, by name, with the hashes of their files.

    Trackers change nothing that a run computes.
    """
    found: dict[str, bytes] = {}
    for c in compositions:
        for name in c.config.plugins:
            module = import_plugin(name)
            found[module.__name__] = executed(module.__name__, Path(module.__file__ or ""))
        for section, part in c.every_part.items():
            own = user_source(type(part))
            if own is not None and not section.startswith("tracker."):
                found[own[0]] = own[1]
    return {
        name.removeprefix(FROM_FILE): hashlib.sha256(text).hexdigest()
        for name, text in found.items()
    }


def user_source(cls: type[Any]) -> tuple[str, bytes] | None:
    """The name and the text of the module of a user's class; None for one of rlkit's own.

    A class of a script or notebook stands alone: its file also holds the call that resumes the run.
    """
    if is_ours(cls):
        return None
    if cls.__module__ == "__main__":
        return f"__main__.{cls.__qualname__}", class_source(cls)
    return cls.__module__, source_of(cls)


def class_source(cls: type[Any]) -> bytes:
    """The lines of a class, or its name if they are unknown."""
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        return cls.__qualname__.encode()


def executed(module: str, file: Path) -> bytes:
    """The contents of a module's file; of a plug-in's as they were when it was imported."""
    return SOURCES[module] if module in SOURCES else file.read_bytes()


def source_of(cls: type[Any]) -> bytes:
    """The contents of the file that defines a class, or its name if it was defined in a shell."""
    try:
        return executed(cls.__module__, Path(inspect.getsourcefile(cls) or ""))
    except (OSError, TypeError):
        return f"{cls.__module__}:{cls.__qualname__}".encode()


@cache
def _version(package: str) -> str | None:
    """The distribution a top-level package belongs to, with its version."""
    if package in OURS:
        return f"rlkit-rft {rlkit.__version__}"
    owners = importlib.metadata.packages_distributions()  # reads every distribution's files
    name = next(iter(owners.get(package, ())), None)
    return name and f"{name} {importlib.metadata.version(name)}"
