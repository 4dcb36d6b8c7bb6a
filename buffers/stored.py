"""Rollouts that another run has stored: offline reinforcement learning."""

from __future__ import annotations

from typing import Literal

from buffers.on_policy import Storeless
from rlkit.batch import Group, Request
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, PromptSource, RolloutSet, RunContext, State, StoredData
from rlkit.ops import stream_rng
from rlkit.registry import register


class StoredConfig(PartConfig):
    """Settings of where stored rollouts come from and in which order they are trained."""

    path: str | None = None
    """A run folder with rollouts, a folder of shards, or a Parquet file (docs/rollouts.md)."""
    order: Literal["shuffled", "stored"] = "shuffled"
    """shuffled = every epoch in a random order of its own; stored = as they were generated."""
    follow: bool = False
    """Whether an epoch also has the shards that were added since the one before, because the run
    that writes them still trains."""
    score_with: str | None = None
    """The model under which behavior log-probs are computed that are not stored: base = the run's
    own model before training, or a name or folder. Ratios are then to that model, whoever wrote the
    text. null = a loss that reads them is refused."""
    other_tokenizer: Literal["error", "encode"] = "error"
    """What becomes of responses of another tokenizer: encode = their texts are encoded with this
    one. Their log-probs were those of other tokens and count as missing."""
    other_temperature: Literal["error", "keep", "rescore"] = "error"
    """What becomes of responses sampled at another temperature than rollout.temperature. keep =
    their log-probs stay: the ratio is to the policy that sampled, but is not 1 where the weights
    are the same. rescore = they are computed at this run's temperature, under score_with."""


@register("buffer", "stored")
class StoredBuffer(Storeless[StoredConfig]):
    """Every group is one that another run has stored; nothing is generated.

    A stored response counts as replayed and as sampled by the weights this run begins with: its age
    is the training step, at least 1. Its step and policy version in the file count another run's
    steps and are not used, and neither are log-probs cached there. Those computed under
    `score_with` are kept in the run folder, each computed once. Beside new responses it stands in
    `buffer=mix`. Status: exact for offline data; the order is our choice.
    """

    sources = ()
    reads_rollouts = True

    def __init__(self, config: StoredConfig | None = None) -> None:
        super().__init__(config)
        self.rollouts: RolloutSet | None = None
        self.epoch = self.position = self.groups = 0
        """The epoch, how many of its groups were read, and how many it has."""
        self.order: tuple[tuple[int, int], list[int]] | None = None
        """The epoch and its number of groups, and the order in which they are read."""

    @property
    def stored_data(self) -> tuple[StoredData, ...]:
        """The stored rollouts. Raises UserError if a model to score with is needed and not set."""
        c, folder = self.config, self.context.folder
        if c.other_temperature == "rescore" and c.score_with is None:
            raise UserError("other_temperature=rescore needs buffer.score_with, a model")
        return (
            StoredData(
                path=c.path,
                score_with=c.score_with,
                other_tokenizer=c.other_tokenizer,
                other_temperature=c.other_temperature,
                folder=folder / "scores" if folder is not None else None,
            ),
        )

    def open(self, context: RunContext) -> None:
        """Open the files. Raises UserError if they do not suit the run."""
        super().open(context)
        self.rollouts = context.open_rollouts(self.stored_data[0])
        self.groups = len(self.rollouts)

    def fresh_share(self, batch: int) -> int:
        """Nothing is generated."""
        return 0

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """Nothing is generated."""
        return []

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The next groups of the order, none twice in a step."""
        assert self.rollouts is not None
        places: dict[int, None] = {}
        while len(places) < min(batch, self.groups):
            if self.position == self.groups:
                self._next_epoch()
            places.setdefault(self._places()[self.position])
            self.position += 1
        return self.rollouts.groups(list(places))

    def stats(self) -> dict[str, float]:
        """The epoch, counted from 0, the groups it has, and what was done to those of this step."""
        done = {} if self.rollouts is None else self.rollouts.figures()
        return {"epoch": float(self.epoch), "groups": float(self.groups), **done}

    def close(self) -> None:
        """Let go of the files, and of the model that scored."""
        self.rollouts = None

    def state_dict(self) -> State:
        """How far the groups were read, and of which files."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "groups": self.groups,
            "rollouts": {} if self.rollouts is None else self.rollouts.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from there. Raises UserError if a file that was read is missing."""
        assert self.rollouts is not None
        self.rollouts.load_state_dict(state["rollouts"])
        self.epoch, self.position, self.groups = (
            state["epoch"],
            state["position"],
            state["groups"],
        )

    def _next_epoch(self) -> None:
        assert self.rollouts is not None
        if self.config.follow:
            self.rollouts.refresh()
        self.epoch, self.position, self.groups = self.epoch + 1, 0, len(self.rollouts)

    def _places(self) -> list[int]:
        key = self.epoch, self.groups
        if self.order is None or self.order[0] != key:
            places = list(range(self.groups))
            if self.config.order == "shuffled":
                rng = stream_rng(self.context.seed, "stored", self.epoch)
                places = rng.permutation(self.groups).tolist()
            self.order = key, places
        return self.order[1]
