"""A policy from a Hugging Face name, a folder, or a GGUF file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlkit.config.devices import device_of
from rlkit.config.hub import from_hub, looks_like_path, no_folder, packaged
from rlkit.config.run import ModelConfig
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.models.dropout import Dropout, dropped_modules
from rlkit.models.lora import (
    add_adapter,
    load_adapter,
    plain_model,
)

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    pass


from rlkit.models.policy import Policy
from rlkit.models.recompute import checkpoint_layers


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if available. Raises UserError for a device that does not exist."""
    return device_of(name, "model.device")


def load_policy(
    config: ModelConfig,
    folder: str | Path,
    temperature: float,
    *,
    adapter: Path | None = None,
    processes: Processes = SINGLE,
) -> Policy:
    """The model and tokenizer of a Hugging Face name, a folder, or a `.gguf` file.

    A `.gguf` file may also be `pkg://package/file.gguf`. With model.lora.r the model gets adapters,
    loaded from the folder `adapter` if there is one. Raises UserError if the model cannot be found.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = found_source(config.name, folder)
    arguments: dict[str, Any] = {}
    if source.endswith(".gguf"):
        arguments["gguf_file"] = Path(source).name
        source = str(Path(source).parent)
    resolve_device(config.device)
    local = Path(source).is_dir()
    try:
        with nullcontext() if local else from_hub("model", source, f"model.name={config.name}"):
            tokenizer = AutoTokenizer.from_pretrained(source, **arguments)
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=getattr(torch, config.dtype),
                attn_implementation=config.attn_implementation,
                trust_remote_code=False,
                **arguments,
            )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.name={config.name} cannot be loaded: {reason}") from error
    if arguments:  # a de-quantized model refuses save_pretrained
        model = plain_model(model, model.state_dict())
    return _finished(config, (model, tokenizer), temperature, adapter, processes)


def found_source(name: str, folder: str | Path) -> str:
    """Where the model `name` is: a file, a folder, or a name of the hub, which is not asked.

    Raises UserError if a file or folder does not exist or holds no model.
    """
    source = packaged(str(folder), "model.name")
    if source.endswith(".gguf"):
        if not Path(source).is_file():
            raise UserError(f"model.name={name}: the file {source} does not exist")
    elif Path(source).is_dir():
        check_model_folder(name, Path(source))
    elif looks_like_path(source):
        raise UserError(f"model.name={name}: {no_folder(Path(source))}")
    return source


def check_model_folder(name: str, folder: Path) -> None:
    """Raise UserError if a folder holds no model."""
    if not list(folder.glob("*config.json")):
        raise UserError(f"model.name={name} is not a model folder: it has no config.json")


def given_policy(
    config: ModelConfig,
    given: tuple[Any, Any],
    temperature: float,
    *,
    checkpoint: Path | None = None,
    processes: Processes = SINGLE,
) -> Policy:
    """A policy on an in-memory model and tokenizer, with a checkpoint's weights if there is one.

    The model is trained in place.
    """
    model, tokenizer = given
    adapter = checkpoint if config.lora.r > 0 else None
    if checkpoint is not None and adapter is None:
        saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())
    return _finished(config, (model, tokenizer), temperature, adapter, processes)


def _finished(
    config: ModelConfig,
    loaded: tuple[Any, Any],
    temperature: float,
    adapter: Path | None,
    processes: Processes,
) -> Policy:
    """The policy of a loaded model and tokenizer: on its device, with its adapters."""
    model, tokenizer = loaded
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end-of-sequence token")
    if config.lora.r > 0:
        model = load_adapter(model, adapter) if adapter else add_adapter(model, config.lora)
    torch.nn.Module.to(model, resolve_device(config.device))
    model.train(False)
    checkpoint_layers(model, on=config.gradient_checkpointing)
    return Policy(
        model,
        tokenizer,
        temperature,
        autocast=getattr(torch, config.autocast) if config.autocast else None,
        dropout=Dropout(dropped_modules(model, own=config.dropout)),
        processes=processes,
    )
