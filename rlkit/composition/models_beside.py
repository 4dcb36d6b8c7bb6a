"""Models beside the policy, which a user names: a scorer of stored responses, a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlkit.composition.base_model import embedded_folder
from rlkit.composition.composition import Composition
from rlkit.config.devices import device_of
from rlkit.config.run import EMBEDDED, LoraConfig
from rlkit.errors import UserError
from rlkit.interfaces import FixedModel, ModelSource
from rlkit.models.fixed import LoadedModel
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rollout.head_probe import find_head
from rlkit.stored.card import tokenizer_hash

PLAIN = {"lora": LoraConfig(), "gradient_checkpointing": False, "dropout": False}
"""Settings of the model that are about training."""


def load_beside(
    c: Composition, policy: Policy, folder: str | Path, setting: str, **changes: Any
) -> Policy:
    """A frozen model with the policy's settings of `model`, but for these changes.

    `setting` is what the user called it, `changes["name"]` by which name. Raises UserError if it
    cannot be loaded or its tokenizer is not the policy's.
    """
    config = c.config.model.model_copy(update={**PLAIN, **changes})
    try:
        loaded = load_policy(config, folder, policy.temperature)
    except UserError as error:
        raise UserError(str(error).replace("model.name=", f"{setting}=")) from error
    loaded.model.requires_grad_(False)
    if tokenizer_hash(loaded.tokenizer) != tokenizer_hash(policy.tokenizer):
        raise UserError(
            f"{setting}={config.name} has another tokenizer than the model that is trained, so it "
            "cannot give log-probs of its tokens; choose a model with the same tokens and ids"
        )
    return loaded


def folder_of(c: Composition, path: str) -> str:
    """Where a named model is; the embedded one is this run's, made on first use."""
    if path != EMBEDDED:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return c.processes.on_main(lambda: embedded_folder(c))


def model_opener(
    c: Composition, policy: Policy, say: Callable[[str], None]
) -> Callable[[ModelSource], FixedModel | None]:
    """What loads the models that parts of a run name."""

    def opened(source: ModelSource) -> FixedModel | None:
        if source.path is None:
            if c.config.model.name != EMBEDDED:
                raise UserError(
                    f"needs {source.setting}: the name or folder of a model with the policy's "
                    "tokenizer, such as a checkpoint of an earlier run"
                )
            say(
                f"{source.setting} is not set: the model before training takes its place, so there "
                "is nothing to learn from it. Give a checkpoint of an earlier run."
            )
            return None
        settings = {"dtype": source.dtype, "autocast": None} if source.dtype else {}
        kept = device_of(source.device, "anchor.device") if source.device else policy.device
        loaded = load_beside(
            c,
            policy,
            folder_of(c, source.path),
            source.setting,
            name=source.path,
            device=str(kept),
            **settings,
        )
        loaded.head = find_head(loaded, c.config.seed)
        computes = policy.device if kept.type == "cpu" else loaded.device
        say(f"{source.setting}={source.path}, {str(loaded.model.dtype)[6:]} on {kept}.")
        return LoadedModel(loaded, computes)

    return opened
