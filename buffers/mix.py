"""Two buffers share a batch: replay beside demonstrations, or any other pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from rlkit.batch import Group, Request, Sample, Score
from rlkit.errors import UserError
from rlkit.interfaces import (
    FileRow,
    PartConfig,
    PromptSource,
    ReplayBuffer,
    RunContext,
    RunSize,
    State,
    StoredData,
)
from rlkit.ops import stream_seed
from rlkit.registry import build_section, register

FIRST, SECOND = "first", "second"


class MixConfig(PartConfig):
    """Settings of the two buffers and of how they share a batch."""

    first: Mapping[str, Any] = Field(default_factory=lambda: {"name": "on_policy"})
    """A buffer: its name, and those of its settings that are not the defaults."""
    second: Mapping[str, Any] = Field(default_factory=lambda: {"name": "expert"})
    """Another buffer, in the same form."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a batch's groups that the second buffer decides about. CHORD's is 0.2."""


@register("buffer", "mix")
class Mix(ReplayBuffer[MixConfig]):
    """A batch of two parts, each planned, built and remembered by a buffer of its own.

        places of the second = round(share B), the rest are the first's, and each has one or more

    A buffer sees its own groups alone. Scores go to both. Status: our choice; Trinity-RFT
    (arXiv:2505.17826) mixes expert and own experience this way, by a share of the batch.

    Public code: Trinity-RFT rounds the second's places up.
    """

    sources = ("2505.17826",)

    def __init__(self, config: MixConfig | None = None) -> None:
        super().__init__(config)
        self.parts = {
            FIRST: _part(FIRST, self.config.first),
            SECOND: _part(SECOND, self.config.second),
        }
        self.gives_expert = any(part.gives_expert for part in self.parts.values())
        self.reads_rollouts = all(part.reads_rollouts for part in self.parts.values())
        self.unknown_behavior = any(part.unknown_behavior for part in self.parts.values())
        self.keeps_columns = any(part.keeps_columns for part in self.parts.values())
        self.asked: list[tuple[Request, str]] = []
        """This step's requests and whose they are."""
        self.planned = -1
        """The last step that was planned."""

    def check_rows(
        self, read: Callable[[str], Sequence[FileRow]], task_rows: Iterable[FileRow]
    ) -> None:
        """Each with a share checks its own."""
        for name, share in ((FIRST, 1 - self.config.share), (SECOND, self.config.share)):
            if share > 0:
                self.parts[name].check_rows(read, task_rows)

    def require(self) -> None:
        """What both need."""
        for part in self.parts.values():
            part.require()

    @property
    def stored_data(self) -> Sequence[StoredData]:
        """Those of both buffers."""
        return [data for part in self.parts.values() for data in part.stored_data]

    def open(self, context: RunContext) -> None:
        """Open both, each with a seed and a folder of its own."""
        super().open(context)
        for name, part in self.parts.items():
            folder = context.folder / name if context.folder is not None else None
            part.open(replace(context, seed=stream_seed(context.seed, name), folder=folder))

    def out_of_reach(self, run: RunSize) -> str | None:
        """What either never comes to, by the places that it has."""
        none = [name for name, count in self.places(run.groups).items() if count == 0]
        told = [f"buffer.{name} has no place in a batch" for name in none]
        for name, part, count in self._at_work(run.groups):
            missed = part.out_of_reach(replace(run, groups=count))
            told += [] if missed is None else [f"buffer.{name}: {missed}"]
        return "; ".join(told) or None

    def places(self, batch: int) -> dict[str, int]:
        """How many groups of a batch each decides about; one at least where both have a share."""
        share = self.config.share
        second = round(share * batch)
        if 0 < share < 1 < batch:
            second = min(max(second, 1), batch - 1)
        return {FIRST: batch - second, SECOND: second}

    def fresh_share(self, batch: int) -> int:
        """What both generate."""
        places = self.places(batch)
        return sum(
            self.parts[name].fresh_share(count) for name, count in places.items() if count > 0
        )

    def replays(self, batch: int) -> bool:
        """Whether either does."""
        return any(part.replays(count) for _, part, count in self._at_work(batch))

    def plan(self, batch: int, step: int, prompts: PromptSource) -> list[Request]:
        """The requests of both."""
        if step != self.planned:
            self.planned, self.asked = step, []
        new: list[Request] = []
        for name, part, count in self._at_work(batch):
            requests = part.plan(count, step, prompts)
            self.asked += [(request, name) for request in requests]
            new += requests
        return new

    def scores_wanted(self, step: int) -> list[Sample]:
        """What either wants."""
        return [sample for part in self.parts.values() for sample in part.scores_wanted(step)]

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Hand the scores to both."""
        for part in self.parts.values():
            part.observe(scores)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """What both build of the groups that they asked for."""
        return [
            group
            for name, part, count in self._at_work(batch)
            for group in part.build(self._own(fresh, name), count, step)
        ]

    def add(self, fresh: list[Group], step: int) -> None:
        """Each keeps of its own groups what it wants."""
        for name, part in self.parts.items():
            part.add(self._own(fresh, name), step)
        self.asked = []

    def stats(self) -> dict[str, float]:
        """The figures of both, each under its place."""
        return {
            f"{name}_{key}": value
            for name, part in self.parts.items()
            for key, value in part.stats().items()
        }

    def clear(self) -> None:
        """Both forget everything."""
        for part in self.parts.values():
            part.clear()

    def close(self) -> None:
        """Close both."""
        for part in self.parts.values():
            part.close()

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def state_dict(self) -> State:
        """The state of each."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def _at_work(self, batch: int) -> list[tuple[str, ReplayBuffer[Any], int]]:
        """Those that have places in the batch."""
        return [(n, self.parts[n], count) for n, count in self.places(batch).items() if count > 0]

    def _own(self, fresh: list[Group], name: str) -> list[Group]:
        """The groups that a buffer asked for: a group holds the very prompt of its request.

        A prompt that was given back belongs to who asked for it last.
        """
        owners = {id(request.prompt): owner for request, owner in self.asked}
        return [group for group in fresh if owners.get(id(group.prompt)) == name]


def _part(place: str, settings: Mapping[str, Any]) -> ReplayBuffer[Any]:
    """The buffer that stands at a place."""
    if "name" not in settings:
        raise UserError(f"buffer.{place} needs the name of a buffer: buffer.{place}.name=fifo")
    rest = {key: value for key, value in settings.items() if key != "name"}
    part: ReplayBuffer[Any] = build_section("buffer", settings["name"], rest, f"buffer.{place}")
    return part
