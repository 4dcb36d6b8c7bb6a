"""A run in stages: each is composed like a run of its own and continues the policy before it.

    stages: [{steps: 20, overrides: [algorithm=sft]}, {steps: 60, overrides: [algorithm=remix]}]

A stage's overrides are applied after those of the command line. Within a stage, steps count from 1,
for its schedules too, and random draws are separate; logs and checkpoints count steps of the whole
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from omegaconf import OmegaConf
from pydantic import ValidationError

from rlkit.composition.error_messages import MAPPED, one_line
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.config.overrides import key_of
from rlkit.config.run import StageConfig
from rlkit.config.validation import validation_message
from rlkit.errors import UserError
from rlkit.ops import stream_seed

OUTPUT = "output_dir"


SHARED = ("model", "eval", "checkpoint", "tracker", "plugins", "resume", "dry_run", OUTPUT)
"""Settings that all stages of a run share."""


def read_stage(number: int, node: Any) -> StageConfig:
    """Validate an entry of `stages`."""
    if not isinstance(node, Mapping):
        raise UserError(
            f"stages.{number}={node!r} is not a stage; write it as {{steps: 20, overrides: "
            "[algorithm=sft]}"
        )
    try:
        return StageConfig(**node)
    except ValidationError as error:
        raise UserError(validation_message(error, StageConfig, f"stages.{number}.")) from None


def stage_configs(raw: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The composed configuration of each stage of a run that Hydra composed from `overrides`.

    Raises UserError if a stage cannot be composed or changes what the whole run shares.
    """
    for number, node in enumerate(raw["stages"]):
        stage = read_stage(number, node)
        own = import_before_compose(stage.overrides)
        replaced = {"stages", *map(key_of, own)}
        given = [override for override in overrides if key_of(override) not in replaced]
        if "train.steps" in map(key_of, own):
            raise UserError(
                f"stage {number + 1} overrides train.steps, which is the stage's own: write "
                f"{{steps: {stage.steps}, overrides: [...]}} without it"
            )
        try:
            composed = hydra_compose("config", [*given, *own])
        except MAPPED as error:
            raise UserError(f"stage {number + 1}: {one_line(error, own)}") from error
        found: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
        found |= {"stages": [], "plugins": raw["plugins"]}
        if OUTPUT not in map(key_of, own):
            found[OUTPUT] = raw[OUTPUT]
        if number > 0:
            found["seed"] = stream_seed(found["seed"], "stage", number)
        for key in SHARED:
            if found.get(key) != raw.get(key):
                raise UserError(
                    f"stage {number + 1} changes {key}, which all stages of a run share; set it "
                    "for the whole run"
                )
        found["train"] = found["train"] | {"steps": stage.steps}
        yield found
