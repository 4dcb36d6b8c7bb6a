"""What tells a reader where stored rollouts come from: `card.json` beside the shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlkit.errors import UserError
from rlkit.stored.files import write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CARD = "card.json"
FORMAT = 1
DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Where rollouts come from and how they were sampled."""

    format: int = FORMAT
    rlkit_version: str = ""
    model: str = ""
    weights: str = ""
    """Hash of the weights at the start of the run."""
    tokenizer: str = ""
    """Hash of the vocabulary and the special tokens."""
    chat_template: str = ""
    """Hash of the chat template; empty if there is none."""
    task: str = ""
    rewards: tuple[str, ...] = ()
    temperature: float = 1.0
    """At which behavior_logp is."""
    top_p: float = 1.0
    top_k: int = 0
    max_completion_length: int = 0
    license: str | None = None
    """Of the responses; to be filled in by who publishes them."""

    def write(self, folder: Path) -> None:
        """Write card.json. Raises UserError if the system refuses."""
        write_whole(folder / CARD, json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Card | None:
        """The card of a folder; None if it has none.

        Raises UserError if it cannot be read or is of a newer format.
        """
        path = folder / CARD
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON: {error}") from None
        return Card.of(values, str(path))

    @staticmethod
    def of(values: Any, place: str) -> Card:
        """A card from its values. Raises UserError if they are of a newer format."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise UserError(
                f"{place} is of another format than this version of rlkit reads ({FORMAT})"
            )
        known = {f.name for f in fields(Card)}
        kept: dict[str, Any] = {n: value for n, value in values.items() if n in known}
        kept["rewards"] = tuple(kept.get("rewards", ()))
        return Card(**kept)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """The same for two tokenizers that give every token the same id."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = sorted(map(str, tokenizer.all_special_tokens))
    return _digest(json.dumps([vocabulary, special]).encode())


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the chat template; empty without one."""
    template = tokenizer.chat_template
    return _digest(json.dumps(template, sort_keys=True).encode()) if template else ""


def weights_hash(weights: Mapping[str, Any]) -> str:
    """Hash of every weight, in the order of their names."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]
