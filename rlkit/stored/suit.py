"""Stored rollouts made to suit the run that trains on them, or refused."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rlkit.batch import Group, Sample
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import State, StoredData
from rlkit.stored.card import Card, tokenizer_hash
from rlkit.stored.read import Rows, Shard, StoredRollouts
from rlkit.stored.reencode import Counts, Reencoder, TextEncoder
from rlkit.stored.scores import ScoreFiles

RECOMPUTED = "recomputed_logp"
"""The entry of `Sample.extras` of a response whose behavior log-probs were computed by this run."""
LOOKED_AT = 1000
"""Responses that are encoded when the run begins, to tell what becomes of them."""


class Scorer(Protocol):
    """A frozen model that gives log-probs of stored responses."""

    name: str
    weights: str
    """Hash of its weights."""

    def __call__(self, groups: Sequence[Group]) -> list[Tensor]:
        """The log-probs of each response, group by group, [T] float32 each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens stored rollouts for a run."""

    encoder: TextEncoder
    """Of the run's model."""
    temperature: float
    """rollout.temperature, at which the run takes log-probs."""
    reads_behavior: bool = True
    """Whether a part of the run reads behavior log-probs."""
    scorer: Callable[[str], Scorer] | None = None
    """Loads a model by its name."""
    processes: Processes = SINGLE
    say: Callable[[str], None] = lambda line: None

    def __call__(self, data: StoredData) -> SuitedRollouts:
        """The rollouts at a path.

        Raises UserError if there are none, or if another tokenizer, another temperature or missing
        log-probs are in the way and `data` does not say what to do.
        """
        found = SuitedRollouts(data, self)
        if data.other_tokenizer == "encode":
            found.tell_encoded()
        found.check()
        if data.score_with is not None and not self.reads_behavior:
            self.say("buffer.score_with is not used: no part of this run reads behavior log-probs.")
        return found


class SuitedRollouts:
    """Stored rollouts with token ids of this run's tokenizer, and log-probs wherever needed."""

    def __init__(self, data: StoredData, run: Opener) -> None:
        self.data, self.run, self.path = data, run, data.place
        self.own_tokenizer = tokenizer_hash(run.encoder.tokenizer)
        self.reencoder = Reencoder(run.encoder)
        self.stored = StoredRollouts(self.path, self.adapted, run.processes)
        self.scorer: Scorer | None = None
        """None = not needed yet, or every response is scored."""
        self.seen: set[int] = set()
        """The places of the groups that were read while there was a scorer."""
        self.weights: str | None = None
        """Hash of the weights that the run has scored with; None = it has not."""
        self.scores = ScoreFiles(data.folder or temporary(self))
        self.files: int | None = None
        """How many files of computed log-probs are this run's; None = not settled yet."""
        self.recomputed = self.read = 0
        """Responses of the last groups, and those whose log-probs were computed by this run."""

    def __len__(self) -> int:
        """The number of groups."""
        return len(self.stored)

    def check(self) -> None:
        """Raise UserError for a shard that does not suit; load the model that is to score."""
        for shard in self.stored.shards:
            card = shard.card or Card(temperature=self.run.temperature)
            if self.is_foreign(shard) and self.data.other_tokenizer == "error":
                raise UserError(
                    f"{self.path} was made with another tokenizer than the model's, so its "
                    "token ids mean other texts; train a model with that tokenizer, or encode the "
                    "texts again: buffer.other_tokenizer=encode"
                )
            if self.is_other_temperature(shard) and self.data.other_temperature == "error":
                raise UserError(
                    f"{self.path} was sampled at temperature {card.temperature}, but "
                    f"rollout.temperature is {self.run.temperature}: set that to the same, or "
                    "buffer.other_temperature=keep or rescore"
                )
        if not self.run.reads_behavior or not any(map(self.lacks_logp, self.stored.shards)):
            return
        if self.data.score_with is None:
            raise UserError(
                f"{self.path} has no behavior log-probs of this model's tokens, which this "
                "composition reads; compute them: buffer.score_with=base or another model, or use "
                "a loss that needs none (rlkit list loss)"
            )
        self.loaded_scorer()

    def is_foreign(self, shard: Shard) -> bool:
        """Whether another tokenizer made a shard."""
        made = shard.card.tokenizer if shard.card is not None else ""
        return bool(made) and made != self.own_tokenizer

    def is_other_temperature(self, shard: Shard) -> bool:
        """Whether the log-probs of a shard are at another temperature than the run's."""
        card = shard.card
        return card is not None and not math.isclose(card.temperature, self.run.temperature)

    def lacks_logp(self, shard: Shard) -> bool:
        """Whether responses of a shard have no behavior log-probs that can be used."""
        rescored = self.data.other_temperature == "rescore" and self.is_other_temperature(shard)
        return shard.unknown_logp or rescored or self.is_foreign(shard)

    def adapted(self, shard: Shard, rows: Rows) -> Rows:
        """The rows of a group, encoded again and without log-probs where these do not hold."""
        if self.is_foreign(shard):
            return [self.reencoder.row(row, shard.path.name) for row in rows]
        if self.data.other_temperature == "rescore" and self.is_other_temperature(shard):
            return [row | {"behavior_logp": None} for row in rows]
        return rows

    def tell_encoded(self) -> None:
        """Encode the first responses again, and say what becomes of them."""
        place = responses = 0
        while place < len(self) and responses < LOOKED_AT:
            responses += len(self.stored.groups([place])[0].samples)
            place += 1
        c = self.reencoder.counts
        if c.responses:
            self.run.say(
                f"{self.path} is encoded again with this model's tokenizer: of the first "
                f"{c.responses} responses {c.changed} decode to another text, and {c.before} "
                f"tokens become {c.after}."
            )

    def loaded_scorer(self) -> Scorer:
        """The model that scores, loaded when it is needed."""
        if self.scorer is None:
            assert self.data.score_with is not None and self.run.scorer is not None
            self.scorer = self.run.scorer(self.data.score_with)
            if self.weights is None:
                self.run.say(
                    f"Behavior log-probs that {self.path} does not have are recomputed under "
                    f"{self.scorer.name} (weights {self.scorer.weights}) at temperature "
                    f"{self.run.temperature}: ratios are to that model, not to the one that "
                    "sampled."
                )
        if self.weights not in (None, self.scorer.weights):
            raise UserError(
                f"buffer.score_with={self.data.score_with} has other weights than when this run "
                "began, so log-probs would be of two policies; restore it"
            )
        self.weights = self.scorer.weights
        return self.scorer

    def groups(self, places: Sequence[int]) -> list[Group]:
        """The groups at these places. Missing log-probs are computed once and kept."""
        self.reencoder.counts = Counts()
        groups = self.stored.groups(places)
        unknown = [lacking(group) for group in groups]
        self.read = sum(len(group.samples) for group in groups)
        self.recomputed = 0
        logps: Mapping[int, Tensor] = {}
        if any(unknown) and self.run.reads_behavior:
            wanted = zip(groups, unknown, strict=True)
            logps = self._known([replace(group, samples=samples) for group, samples in wanted])
        self.recomputed = len(logps)
        if self.scorer is not None:
            self.seen.update(places)
            if len(self.seen) == len(self):
                self.scorer = None  # it is not asked again, and its memory is free
        return [given(group, logps) for group in groups]

    def _known(self, groups: Sequence[Group]) -> dict[int, Tensor]:
        """The log-probs of every response of the groups, from the files or computed now.

        Only the main process has the files.
        """
        if self.data.score_with is None:
            raise UserError(f"{self.path} has responses whose behavior log-probs are missing")
        if self.files is None:
            self.keep(0)
        on_main = self.run.processes.on_main
        ids = [s.sample_id for group in groups for s in group.samples]
        found = on_main(lambda: self.scores.find(ids))
        missing = [
            replace(group, samples=[s for s in group.samples if s.sample_id not in found])
            for group in groups
        ]
        missing = [group for group in missing if group.samples]
        if not missing:
            return found
        scorer = self.loaded_scorer()
        samples = [sample for group in missing for sample in group.samples]
        new = {s.sample_id: logp for s, logp in zip(samples, scorer(missing), strict=True)}
        if not all(logp.isfinite().all() for logp in new.values()):
            raise UserError(f"{scorer.name} gives log-probs that are not finite; see model.dtype")
        on_main(lambda: self.scores.add(new))
        self.files = (self.files or 0) + 1
        return found | new

    def keep(self, count: int) -> None:
        """Begin with the first `count` files of computed log-probs."""
        self.run.processes.on_main(lambda: self.scores.keep(count))
        self.files = count

    def refresh(self) -> None:
        """Take in files that are new. Raises UserError if one does not suit."""
        before = len(self)
        self.stored.refresh()
        if len(self) > before:
            self.check()

    def figures(self) -> dict[str, float]:
        """Of the last groups: the share whose log-probs were recomputed, and what was encoded."""
        out: dict[str, float] = {}
        if self.data.score_with is not None:
            out["recomputed_logp"] = self.recomputed / max(1, self.read)
        if self.data.other_tokenizer == "encode":
            c = self.reencoder.counts
            out["encoded"], out["encoded_changed"] = float(c.responses), float(c.changed)
            out["encoded_length_ratio"] = c.after / c.before if c.before else 1.0
        return out

    def state_dict(self) -> State:
        """The files read, how many of computed log-probs there are, and under which weights."""
        return {"files": self.stored.names, "scores": self.files or 0, "weights": self.weights}

    def load_state_dict(self, state: State) -> None:
        """Read these files and no others, and go on with the log-probs of that time.

        Raises UserError if a file is missing or the model that scores has other weights.
        """
        self.stored.refresh(state["files"])
        self.weights, self.seen = state["weights"], set()
        if self.scorer is not None:
            self.loaded_scorer()
        self.keep(state["scores"])


def temporary(owner: object) -> Path:
    """A folder that goes with its owner."""
    folder = Path(tempfile.mkdtemp(prefix="rlkit-scores-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def lacking(group: Group) -> list[Sample]:
    """The responses of a group without behavior log-probs."""
    return [s for s in group.samples if s.behavior_logp[s.loss_mask].isnan().any()]


def given(group: Group, logps: Mapping[int, Tensor]) -> Group:
    """The group with these log-probs; NaN stays where others are missing and nothing reads them."""
    samples: list[Sample] = []
    for sample in group.samples:
        known: Any = {}
        if sample.sample_id in logps:
            known = {
                "behavior_logp": logps[sample.sample_id],
                "extras": {**sample.extras, RECOMPUTED: 1.0},
            }
        samples.append(replace(sample, **known))
    return replace(group, samples=samples)
