"""`rlkit import`: another tool's rollouts as stored ones, encoded with a model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlkit
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError, suggest
from rlkit.stored.card import Card, template_hash, tokenizer_hash
from rlkit.stored.importing import SOURCES, import_files
from rlkit.tasks.encode import Encoder


def import_rollouts(
    source: str,
    files: Sequence[str],
    out: str,
    tokenizer: str,
    reward: str | None,
    temperature: float,
) -> str:
    """Write the folder `out`; returns what was found, in words.

    Raises UserError if a file cannot be read or is not of the layout named by `source`.
    """
    if source not in SOURCES:
        raise UserError(
            f"--from {source}: known are {', '.join(SOURCES)}.{suggest(source, SOURCES)}"
        )
    paths = [Path(file).expanduser() for file in files]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
    encoder = Encoder(loaded(tokenizer))
    card = Card(
        rlkit_version=rlkit.__version__,
        tokenizer=tokenizer_hash(encoder.tokenizer),
        chat_template=template_hash(encoder.tokenizer),
        task=f"imported from {source}",
        temperature=temperature,
    )
    return f"{out}: {import_files(paths, source, Path(out), encoder, card, reward)}"


def loaded(name: str) -> Any:
    """A tokenizer by name or folder. Raises UserError if it cannot be loaded."""
    from transformers import AutoTokenizer

    if name == EMBEDDED:
        from rlkit.models.embedded import embedded_model_dir

        name = str(embedded_model_dir(0))
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {name} cannot be loaded: {reason}") from error
