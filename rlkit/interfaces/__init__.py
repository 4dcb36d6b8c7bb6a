"""The abstract parts a method is composed of.

A part is a frozen pydantic config (`Part.Config`) and a class that reads `self.config.x` at each
call, never a copy made in `__init__`: schedules replace the config of a running part. The maths is
a pure function above both.
"""

from rlkit.interfaces.advantage import AdvantageEstimator, Scoring
from rlkit.interfaces.anchor import (
    AC,
    AnchorConfig,
    AnchorPolicy,
    FreezablePolicy,
    FrozenCopy,
    Reference,
)
from rlkit.interfaces.buffer import PromptSource, ReplayBuffer
from rlkit.interfaces.episodes import (
    COUNTS,
    INVALID_CALL,
    CallParser,
    Environment,
    EpisodeContext,
    Message,
    Observation,
    Said,
    Start,
    ToolCall,
    with_text,
)
from rlkit.interfaces.loss import LC, Correction, LossConfig, PolicyLoss
from rlkit.interfaces.models import FixedModel, ModelSource
from rlkit.interfaces.part import (
    C,
    FileRow,
    Part,
    PartConfig,
    RolloutSet,
    RunContext,
    RunSize,
    State,
    StoredData,
)
from rlkit.interfaces.reward import Reward, RewardConfig
from rlkit.interfaces.schedule import EVENTS, Event, Phase, Progress, ReincarnationSchedule
from rlkit.interfaces.task import TASK, ChatTemplate, Task, TaskConfig, TaskData
from rlkit.interfaces.tokens import PROMPT_IDS, Tokens, asked_ids
from rlkit.interfaces.tracker import Tracker
from rlkit.interfaces.turns import STATE, TURN, TURN_REWARD, TURNS, state_number, turn_extras

__all__ = [
    "AC",
    "COUNTS",
    "EVENTS",
    "INVALID_CALL",
    "LC",
    "PROMPT_IDS",
    "STATE",
    "TASK",
    "TURN",
    "TURNS",
    "TURN_REWARD",
    "AdvantageEstimator",
    "AnchorConfig",
    "AnchorPolicy",
    "C",
    "CallParser",
    "ChatTemplate",
    "Correction",
    "Environment",
    "EpisodeContext",
    "Event",
    "FileRow",
    "FixedModel",
    "FreezablePolicy",
    "FrozenCopy",
    "LossConfig",
    "Message",
    "ModelSource",
    "Observation",
    "Part",
    "PartConfig",
    "Phase",
    "PolicyLoss",
    "Progress",
    "PromptSource",
    "Reference",
    "ReincarnationSchedule",
    "ReplayBuffer",
    "Reward",
    "RewardConfig",
    "RolloutSet",
    "RunContext",
    "RunSize",
    "Said",
    "Scoring",
    "Start",
    "State",
    "StoredData",
    "Task",
    "TaskConfig",
    "TaskData",
    "Tokens",
    "ToolCall",
    "Tracker",
    "asked_ids",
    "state_number",
    "turn_extras",
    "with_text",
]
