"""A reward model that scores sequences of tokens in batches, loaded once per process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from rlkit.config.devices import device_of
from rlkit.errors import UserError
from rlkit.rewards.learned.load import load_models

UNBOUNDED = 10**6
"""A tokenizer that says it takes more tokens than this says nothing."""


class Source(NamedTuple):
    """What a scorer is made from."""

    paths: tuple[str, ...]
    device: str
    dtype: str


class Scorer:
    """A reward model on its device, which is loaded when it is first used."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What messages call the model."""
        return " + ".join(self.source.paths)

    def load(self) -> tuple[Any, Any]:
        """The model and its tokenizer. Raises UserError if it cannot be loaded."""
        with self._lock:
            if self._loaded is None:
                dtype = getattr(torch, self.source.dtype)
                model, tokenizer = load_models(self.source.paths, dtype)
                model.to(device_of(self.source.device, "reward.model.device"))
                self._loaded = model, tokenizer
            return self._loaded

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        return self.load()[1]

    @property
    def longest(self) -> int | None:
        """Most tokens the model reads; None if it does not say."""
        model, tokenizer = self.load()
        known = (
            getattr(model.config.get_text_config(), "max_position_embeddings", None),
            tokenizer.model_max_length,
        )
        return min((n for n in known if n is not None and 0 < n < UNBOUNDED), default=None)

    def score(self, sequences: Sequence[Sequence[int]], batch_tokens: int) -> list[float]:
        """[B], the model's output for each sequence of tokens.

        Equal sequences are read once and have equal scores. Raises UserError if the device has too
        little memory.
        """
        model, _ = self.load()
        rows = list(dict.fromkeys(map(tuple, sequences)))
        batches = list(batched([len(row) for row in rows], batch_tokens))
        try:
            found = [self._forward(model, [rows[i] for i in places]) for places in batches]
        except torch.OutOfMemoryError:
            raise UserError(
                f"the reward model {self.name} has too little memory on {model.device}; lower "
                "reward.model.batch_tokens, or choose another reward.model.device or dtype"
            ) from None
        places = [place for batch in batches for place in batch]
        scores = torch.cat(found).cpu().tolist() if found else []  # one wait for the device
        by_row = {rows[place]: score for place, score in zip(places, scores, strict=True)}
        return [by_row[tuple(sequence)] for sequence in sequences]

    @torch.inference_mode()
    def _forward(self, model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
        """[B] float32, the scores of a batch, padded on the right."""
        longest = max(map(len, rows))
        pad = model.config.get_text_config().pad_token_id
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])  # [B, T]
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(longest) < lengths[:, None]).long()  # [B, T]
        output = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        logits: Tensor = output.logits  # [B, 1]
        return logits[:, 0].float()


def batched(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """The places of sequences, by length, in batches of at most so many tokens with padding.

    A sequence that is longer stands alone.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


_SCORERS: WeakValueDictionary[Source, Scorer] = WeakValueDictionary()
_LOCK = threading.Lock()


def scorer(source: Source) -> Scorer:
    """The scorer of a source: the same one as long as somebody holds it."""
    with _LOCK:
        found = _SCORERS.get(source)
        if found is None:
            found = _SCORERS[source] = Scorer(source)
        return found
