"""Whether stored rollouts suit the run that is to train on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlkit.errors import UserError
from rlkit.stored.card import tokenizer_hash
from rlkit.stored.read import StoredRollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens stored rollouts for a run."""

    tokenizer: PreTrainedTokenizerBase
    temperature: float
    """rollout.temperature, at which the run takes log-probs."""

    def __call__(self, path: str | None, *, any_temperature: bool = False) -> StoredRollouts:
        """The rollouts at a path.

        Raises UserError if there are none, if another tokenizer made their token ids, or if they
        were sampled at another temperature and that is not allowed.
        """
        if path is None:
            raise UserError("buffer=stored needs buffer.path: a run folder, a folder or a file")
        rollouts = StoredRollouts(path)
        cards = [shard.card for shard in rollouts.shards if shard.card is not None]
        made = {card.tokenizer for card in cards if card.tokenizer}
        if made and made != {tokenizer_hash(self.tokenizer)}:
            raise UserError(
                f"{path} was made with another tokenizer than the model's, so its token ids mean "
                "other texts; train a model with that tokenizer"
            )
        other = {c.temperature for c in cards if not math.isclose(c.temperature, self.temperature)}
        if other and not any_temperature:
            raise UserError(
                f"{path} was sampled at temperature {other.pop()}, but rollout.temperature is "
                f"{self.temperature}: set that to the same, or buffer.other_temperature=keep"
            )
        return rollouts
