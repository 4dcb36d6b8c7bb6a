"""What runs on a device: every composition, every part that none of them has, and settings."""

from __future__ import annotations

from typing import Any

from rlkit.composition.config_files import configs_folder
from rlkit.registry import build, names
from tests.device.runs import Raw, algorithm, raw_like

COMPOSITIONS = sorted(path.stem for path in (configs_folder() / "algorithm").glob("*.yaml"))
RUN_KINDS = ("buffer", "anchor", "schedule")
"""Kinds whose parts do something between the steps; the others are in test_parts.py."""
PART_SETTINGS: dict[str, dict[str, Any]] = {
    "anchor=convex": {"beta": 0.1},
    "anchor=ema": {"beta": 0.1, "bias_corrected": True},
    "anchor=lagged": {"beta": 0.1, "lag": 1},
    "anchor=periodic": {"beta": 0.1, "every": 1},
    "anchor=previous": {"beta": 0.1},
    "schedule=periodic": {"every": 1, "reset_optimizer": True},
}
OFFLINE = {"pairs", "stored"}
"""Buffers that need a file; the responses they give are on the CPU like any other's."""
LORA = {"lora": {"r": 4}}
HOST = {"beta": 0.1, "device": "cpu"}
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bfloat16": ("remix", {}, {"model": {"dtype": "bfloat16"}}),
    "autocast": ("remix", {}, {"model": {"autocast": "bfloat16"}}),
    "recompute": ("grpo", {}, {"model": {"gradient_checkpointing": True}}),
    "dropout": ("grpo", {}, {"model": {"lora": {"r": 4, "dropout": 0.5}}}),
    "dropout, recompute": (
        "grpo",
        {},
        {"model": {"gradient_checkpointing": True, "lora": {"r": 4, "dropout": 0.5}}},
    ),
    "copies on the CPU": ("grpo", {"anchor": "base"}, {"anchor": HOST}),
    "averages on the CPU": ("grpo", {"anchor": "ema"}, {"anchor": HOST}),
    "adapters": ("remix", {}, {"model": LORA}),
    "adapters, copies on the CPU": (
        "grpo",
        {"anchor": "previous"},
        {"model": LORA, "anchor": HOST},
    ),
    "critic": ("remix_ppo", {}, {}),
    "critic, adapters": ("ppo", {}, {"model": LORA}),
    "KL in the reward": (
        "reinforce_pp",
        {"anchor": "base"},
        {"anchor": {"beta": 0.1, "placement": "reward"}},
    ),
    "lag": (
        "grpo",
        {"loss": "grpo_behavior"},
        {"rollout": {"sync_every": 2}, "train": {"lr_ess": 1.0}},
    ),
    "partial": (
        "grpo",
        {"loss": "grpo_behavior"},
        {"rollout": {"oversample": 0.5, "round_tokens": 2}},
    ),
    "layer_skip": ("grpo", {"rollout": "layer_skip"}, {}),
    "truncated": ("grpo", {}, {"rollout": {"top_p": 0.9, "top_k": 5}}),
    "temperature": ("grpo", {}, {"rollout": {"temperature": 0.7}}),
    "stop texts": ("grpo", {}, {"rollout": {"stop": ["#"]}}),
    "buffer on disk": ("remix", {}, {"buffer": {"storage": "disk"}}),
}
SECOND_STEP = {"averages on the CPU", "adapters, copies on the CPU", "lag"}
"""Settings that are about the step after the first."""


def missing(kind: str) -> list[str]:
    """The parts of a kind that are in no composition."""
    used = {algorithm(name)[0][kind]["name"] for name in COMPOSITIONS}
    return sorted({*names(kind)} - used - OFFLINE)


UNCHOSEN = [(kind, name) for kind in RUN_KINDS for name in missing(kind)]


def with_part(kind: str, name: str) -> tuple[Raw, Raw]:
    """A run with a part that no composition has: its settings, and what differs in them."""
    loss = "luffy" if kind == "buffer" and build("buffer", name).gives_expert else "grpo"
    changes = {kind: PART_SETTINGS.get(f"{kind}={name}", {})}
    return raw_like("grpo", **{kind: name, "loss": loss}), changes


def with_setting(name: str) -> tuple[Raw, Raw]:
    """The same under one of SETTINGS."""
    base, chosen, changes = SETTINGS[name]
    return raw_like(base, **chosen), changes
