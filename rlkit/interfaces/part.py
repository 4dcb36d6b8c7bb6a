"""What every part is: a frozen config and a class that holds it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import Group, Messages
from rlkit.errors import UserError, kind_of
from rlkit.interfaces.models import FixedModel, ModelSource, no_model

State = dict[str, Any]
"""Nested dicts and lists of tensors, numbers, strings, booleans and None: what a checkpoint can
hold without pickle."""


class PartConfig(BaseModel):
    """Settings of a part: frozen, unknown keys refused.

    Every field has a default, a bound and a docstring.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let a subclass that restates only a default keep the field's docstring."""
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, own in cls.__pydantic_fields__.items() if not own.description]
        for name in bare:
            for base in cls.__mro__[1:]:
                parent = getattr(base, "__pydantic_fields__", {}).get(name)
                if parent is not None and parent.description:
                    cls.__pydantic_fields__[name].description = parent.description
                    break
        if bare:
            cls.model_rebuild(force=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A row of a data file."""

    number: int
    """Its line, or its place, from 1."""
    place: str
    """The same for messages: "data.jsonl line 3"."""
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredData:
    """Stored rollouts that a part reads, and what may be done so that they suit the run."""

    path: str | None
    """A run folder, a folder of shards, or a Parquet file."""
    score_with: str | None = None
    """The model under which missing behavior log-probs are computed: base = the run's own before
    training, or a name or folder. None = they stay missing."""
    other_tokenizer: Literal["error", "encode"] = "error"
    """encode = texts of another tokenizer are encoded again, their log-probs are then missing."""
    other_temperature: Literal["error", "keep", "rescore"] = "error"
    """keep = log-probs at another temperature stay; rescore = they count as missing."""
    folder: Path | None = None
    """Where computed log-probs are kept; None = a temporary one."""

    @property
    def place(self) -> str:
        """The path. Raises UserError if there is none."""
        if self.path is None:
            raise UserError("set buffer.path: a run folder, a folder of rollouts or a file")
        return self.path


class RolloutSet(Protocol):
    """Stored rollouts, in whole groups."""

    def __len__(self) -> int:
        """The number of groups."""
        ...

    def groups(self, places: Sequence[int]) -> list[Group]:
        """The groups at these places, each from 0 to len - 1."""
        ...

    def refresh(self) -> None:
        """Take in files that are new."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What was done to the groups that were asked for last, for the metrics."""
        ...

    def state_dict(self) -> State:
        """Which files are read, and which log-probs have been computed."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Read these files and no others. Raises UserError if one is missing."""
        ...


def no_rollouts(data: StoredData) -> RolloutSet:
    """The stored rollouts of a part that no run has opened."""
    raise UserError(f"{data.path} is read when a run opens the part, and no run has")


def no_files(path: str) -> Sequence[FileRow]:
    """The reader of a part that no run has opened."""
    raise UserError(f"{path} is read when a run opens the part, and no run has")


def silent(line: str) -> None:
    """Tell nobody."""


def check_per_token(whose: str, key: str, value: object, mask: Tensor) -> None:
    """Raise UserError if a tensor that a part returned does not have the mask's shape [B, T]."""
    wanted = list(mask.shape)
    what = f"of shape {list(value.shape)}" if isinstance(value, Tensor) else kind_of(value)
    if what != f"of shape {wanted}":
        raise UserError(
            f"{whose} returned {key} that is {what}: return a tensor of shape {wanted}, one value "
            "per token; value[:, None].expand(mask.shape) makes it of one per response"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What buffers, anchors and rewards are told about the run before it begins: `open(context)`.

    A reward learns of the seed and the lengths alone; it has no folder.
    """

    seed: int = 0
    """The run's seed, from which every random draw derives."""
    folder: Path | None = None
    """A folder for the part's own files; None = a temporary one."""
    writes: bool = True
    """Whether the part writes to that folder. All ranks hold the same data: the main process writes
    it, the others read."""
    saved_states: Callable[[], Sequence[str]] = tuple
    """The buffer's states in the checkpoints that there are, as JSON: files that they name must
    stay."""
    read_by_loss: frozenset[str] | None = None
    """References that the loss reads; None = unknown, which counts as all of them."""
    max_completion_length: int | None = None
    """Most tokens of a response, rollout.max_completion_length; None = unknown."""
    read_rows: Callable[[str], Sequence[FileRow]] = no_files
    """Reads a file of rows, in every format that a task's data may have. Raises UserError for what
    is no such file."""
    problems: Mapping[str, str | Messages] = field(default_factory=dict)
    """The task's training problems by id: text or messages, as rewards see them."""
    as_asked: Callable[[str | Messages], str | Messages] = lambda prompt: prompt
    """The text or messages of a row's prompt, as the task's own problems become them."""
    open_rollouts: Callable[[StoredData], RolloutSet] = no_rollouts
    """Opens stored rollouts. Raises UserError for what does not suit the run."""
    open_model: Callable[[ModelSource], FixedModel | None] = no_model
    """Loads a model beside the policy; None = the policy itself, as it is when training starts.
    Raises UserError for one that cannot be loaded or reads other tokens than the policy."""
    say: Callable[[str], None] = silent
    """Tells the user a line before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSize:
    """How long a run is, and how large its batches are."""

    steps: int
    """Training steps."""
    groups: int
    """Groups that a step trains, train.prompts_per_step."""
    num_generations: int
    """Responses that are generated for a prompt."""

    def ends_by(self, step: int, missed: str, remedy: str) -> str | None:
        """Words for what begins after a step, if the run ends by then; None if it goes on."""
        return None if step < self.steps else f"{missed}, and the run has {self.steps}; {remedy}"


C = TypeVar("C", bound=PartConfig, default=PartConfig)


class Part(ABC, Generic[C]):
    """Anything the registry can build.

    It holds its config and, if it has memory, saves and restores its state.
    """

    Config: ClassVar[type[PartConfig]] = PartConfig
    """The config it is built with: the generic parameter, `class MyLoss(PolicyLoss[MyConfig])`."""
    sources: ClassVar[tuple[str, ...]] = ()
    """The arXiv ids of the papers that define it, the original first; empty if there are none."""
    caches: ClassVar[tuple[str, ...]] = ()
    """Attributes that change during a run though no later step depends on them. A part that changes
    any other and has no `state_dict`, or that of a part of rlkit's it derives from, is refused."""
    config: C

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the config class from the generic parameter, unless the class names one."""
        super().__init_subclass__(**kwargs)
        if "Config" in vars(cls):
            return
        for base in vars(cls).get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, PartConfig):
                    cls.Config = argument

    def __init__(self, config: C | None = None) -> None:
        self.config = self.Config() if config is None else config  # type: ignore[assignment]

    def require(self) -> None:
        """Raise UserError for what the part needs and this machine lacks, such as a package.

        Called before a model is loaded, in a dry run too, so it loads and writes nothing.
        """

    def out_of_reach(self, run: RunSize) -> str | None:
        """What the part is there for and a run of this size never comes to, in words.

        The user is told it as a warning. None = nothing.
        """
        return None

    def state_dict(self) -> State:
        """Everything the next step reads and the config does not hold; {} if stateless."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
