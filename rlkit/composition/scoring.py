"""Behavior log-probs of stored responses, computed under a model that the user names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlkit.batch import Group
from rlkit.composition.base_model import model_folder
from rlkit.composition.composition import Composition
from rlkit.composition.models_beside import load_beside
from rlkit.config.hub import looks_like_path
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rollout.head_probe import find_head
from rlkit.stored.card import weights_hash
from rlkit.stored.reencode import TextEncoder
from rlkit.stored.suit import Opener
from rlkit.training.collate import collate
from rlkit.training.micro_batches import Forwards, MicroBatches, default_tokens

BASE = "base"
"""The run's own model before training."""
SETTING = "buffer.score_with"


def check_scorer(c: Composition, name: str) -> None:
    """What can be found out before a model is loaded. Raises UserError if it cannot score."""
    if name == BASE and c.given.model is not None:
        raise UserError(
            f"with {SETTING}=base needs the model's own folder, and this run was given a model in "
            f"memory: save it before, and give that folder as {SETTING}"
        )
    if looks_like_path(name) and not Path(name).expanduser().exists():
        raise UserError(f"with {SETTING}={name}: there is no such folder")
    if c.processes.shards_weights:
        raise UserError(
            f"with {SETTING} needs a whole copy of a model on each process; launch with "
            "configs/accelerate/ddp.yaml"
        )


class NamedModel:
    """A frozen model, by name or folder, that gives log-probs at the run's temperature."""

    def __init__(self, c: Composition, policy: Policy, name: str) -> None:
        self.name = c.config.model.name if name == BASE else name
        own = name in (BASE, c.config.model.name)
        folder = c.processes.on_main(lambda: model_folder(c)) if own else name
        self.policy = load_beside(c, policy, folder, SETTING, name=self.name)
        self.policy.head = find_head(self.policy, c.config.seed)
        self.weights = weights_hash(self.policy.model.state_dict())
        size = c.config.train.micro_batch_tokens or default_tokens(policy.device)
        self.forwards = Forwards(MicroBatches(size, c.processes), c.processes)

    def __call__(self, groups: Sequence[Group]) -> list[Tensor]:
        """The log-probs of each response, group by group, [T] float32 each."""
        rows = collate(groups, 0)
        every = torch.arange(len(rows.samples))
        found = self.forwards.by_rows(self.policy.logp, rows.tokens, every)
        return [
            logp[: len(sample.response_ids)].clone()
            for sample, logp in zip(rows.samples, found, strict=True)
        ]


def rollout_opener(
    c: Composition, policy: Policy, encoder: TextEncoder, say: Callable[[str], None]
) -> Opener:
    """What opens stored rollouts for a run."""
    return Opener(
        encoder=encoder,
        temperature=policy.temperature,
        reads_behavior=c.parts.needs("behavior"),
        scorer=lambda name: NamedModel(c, policy, name),
        processes=c.processes,
        say=say,
    )
