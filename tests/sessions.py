"""A session of the tiny policy, without Hydra and without a command: for tests of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rlkit
from rlkit.config.run import EvalConfig, RunConfig, TrainConfig
from rlkit.config.saving import CheckpointConfig
from rlkit.evaluation.evaluator import Evaluator
from rlkit.interfaces import Tracker
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.source import OnDemand
from rlkit.runs.folder import RunFolder
from rlkit.runs.stopping import StopRequest
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
from rlkit.training.collect import Collector
from rlkit.training.state import Session
from tests.steps import ROWS, has_one, parts


class Listening(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.logged: list[tuple[int, Mapping[str, float]]] = []

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        return None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, metrics))

    def message(self, text: str) -> None:
        self.lines.append(text)


def config_of(folder: Path, **train: Any) -> RunConfig:
    """Two groups a step, evaluated and checkpointed at the ends alone."""
    settings = {"steps": 2, "prompts_per_step": 2, "micro_batch_tokens": 200, **train}
    return RunConfig(
        output_dir=str(folder),
        train=TrainConfig(**settings),
        eval=EvalConfig(problems=2, every=None),
        checkpoint=CheckpointConfig(every=None),
    )


def make_session(policy: Policy, folder: Path, **changes: Any) -> Session:
    """A session on an open folder; `changes` are fields of it that differ."""
    config = changes.pop("config", config_of(folder))
    chosen = parts(loss="ppo", anchor="base")
    engine = HFRollout(HFConfig(max_completion_length=6, num_generations=2))
    engine.start(policy, config.seed)
    rewards = RewardSet({"one": reward_class(has_one)()})
    buffer, schedule = rlkit.build("buffer", "on_policy"), rlkit.build("schedule", "never")
    run_folder = RunFolder(folder)
    run_folder.open({}, [], {}, 0)
    prompts = Prompts("train", ROWS, policy.tokenizer)
    session = Session(
        config=config,
        raw={},
        policy=policy,
        parts=chosen,
        buffer=buffer,
        schedule=schedule,
        engine=engine,
        collector=Collector(
            OnDemand(engine, greedy=False), rewards, chosen.advantage, policy.tokenizer
        ),
        prompts=PromptStream(prompts, config.seed, 2, 6),
        evaluator=Evaluator(
            prompts=prompts,
            rewards=rewards,
            engine=engine,
            tokenizer=policy.tokenizer,
            config=config.eval,
        ),
        run_folder=run_folder,
        trackers={"own": Listening()},
        sections={
            "loss": chosen.loss,
            "advantage": chosen.advantage,
            "anchor": chosen.anchor,
            "buffer": buffer,
            "schedule": schedule,
        },
        scalars={},
        stop=StopRequest(),
    )
    session = replace(session, **changes)
    sections = {**session.sections, "buffer": session.buffer, "schedule": session.schedule}
    return replace(session, sections=sections)


def heard(session: Session) -> Listening:
    """Its tracker."""
    tracker = session.trackers["own"]
    assert isinstance(tracker, Listening)
    return tracker
