"""A reward model in memory: one, or the mean of several models' weights.

    theta = (1 / M) sum_m theta_m

Weight averaged reward models, WARM (arXiv:2401.12187): M models that were finetuned from the
same weights, with other data orders or settings, are averaged in weight space and score as one.
That costs no more than one model, and the mean is more robust to shifted responses and noisy
preferences than each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlkit.config.hub import from_hub
from rlkit.errors import UserError
from rlkit.rewards.learned.files import (
    CALLED,
    check_alike,
    check_labels,
    config_of,
    unreadable,
)


def load_models(paths: Sequence[str], dtype: torch.dtype) -> tuple[Any, Any]:
    """The model on the CPU and its tokenizer; of several, the mean of their weights.

    They are averaged in float32, one after the other, so that two models are in memory at most.
    Raises UserError for what is no reward model, and for models that have no mean.
    """
    several = len(paths) > 1
    model, tokenizer = load_model(paths[0], torch.float32 if several else dtype)
    weights: dict[str, Tensor] = model.state_dict()
    for count, path in enumerate(paths[1:], start=2):
        other, its_tokenizer = load_model(path, torch.float32)
        check_tokenizers(paths[0], tokenizer, path, its_tokenizer)
        theirs = other.state_dict()
        check_alike(paths[0], shapes(weights), path, shapes(theirs))
        add_to_mean(weights, theirs, count)
    return (model.to(dtype) if several else model), tokenizer


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@torch.no_grad()
def add_to_mean(mean: Mapping[str, Tensor], weights: Mapping[str, Tensor], count: int) -> None:
    """Make a mean of count - 1 models that of `count`, in place: m + (w - m) / count.

    The mean of equal weights is exactly these. Integers stay as they are.
    """
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            tensor.add_((weights[name].to(tensor.dtype) - tensor) / count)


def check_tokenizers(first: str, one: Any, second: str, other: Any) -> None:
    """Raise UserError if two tokenizers write different tokens."""
    for what, same in (
        ("vocabularies", one.get_vocab() == other.get_vocab()),
        ("chat templates", one.chat_template == other.chat_template),
    ):
        if not same:
            raise UserError(
                f"{CALLED}: the tokenizers of {first} and {second} have different {what}, so that "
                "a mean of the models' weights reads neither's tokens"
            )


def load_model(path: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A reward model on the CPU and its tokenizer, from safetensors, without code of its own.

    The random state stays what it is. Raises UserError if it is none.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = str(Path(path).expanduser()) if path.startswith("~") else path
    local = Path(source).is_dir()
    with nullcontext() if local else from_hub("model", path, f"{CALLED}={path}"):
        check_labels(path, config_of(source))
        try:
            with torch.random.fork_rng(devices=[]):
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    source,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise unreadable(path, error) from error
    if absent := sorted(report["missing_keys"]):
        raise UserError(
            f"{CALLED}={path} is no trained reward model: its files lack {absent[0]}"
            + (f" and {len(absent) - 1} more weights" if len(absent) > 1 else "")
        )
    prepare(path, model, tokenizer)
    return model, tokenizer


def prepare(path: str, model: Any, tokenizer: Any) -> None:
    """Have the model find the end of a padded text, and keep no cache.

    As in TRL's trainer, the token that pads is the tokenizer's, or else its end of sequence.
    """
    config = model.config.get_text_config()
    choices = (tokenizer.pad_token_id, config.pad_token_id, tokenizer.eos_token_id)
    config.pad_token_id = next((token for token in choices if token is not None), None)
    if config.pad_token_id is None:
        raise UserError(
            f"{CALLED}={path}: its tokenizer has neither a padding nor an end-of-sequence token"
        )
    config.use_cache = False
    model.requires_grad_(False)
    model.train(False)
