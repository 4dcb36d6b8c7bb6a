"""The process that an engine elsewhere runs in: the order of its commands."""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from rlkit.batch import Request
from rlkit.models.policy import Policy
from rlkit.plugins import import_plugin
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.packing import unpack
from rlkit.rollout.weights import save_weights, write_config, write_weights
from rlkit.rollout.worker import MODEL, Generator, Inbox, in_turns, newest_first, weights_file
from rlkit.runs.checkpoint import load_tree
from tests.steps import move
from tests.tiny import make_policy, make_prompts


def named_weights(step: int) -> dict[str, object]:
    return {"do": "weights", "step": step}


def job(number: int) -> dict[str, object]:
    return {"do": "generate", "number": number}


def test_the_newest_weights_come_first_and_jobs_keep_their_order() -> None:
    given = [job(1), named_weights(2), job(2), named_weights(3), job(3)]
    assert newest_first(given) == [named_weights(3), job(1), job(2), job(3)]
    assert newest_first([job(1), job(2)]) == [job(1), job(2)]


class Stopped(Exception):
    """Stands for the end of the process."""


def inbox(commands: list[dict[str, object]], *, ordered: bool) -> Inbox:
    """One whose commands have all arrived, without a thread."""
    made = object.__new__(Inbox)
    made.ordered, made.pending, made.arrived = ordered, [], SimpleQueue()
    for command in commands:
        made.arrived.put(command)
    return made


@pytest.mark.parametrize(
    ("ordered", "expected"),
    [
        (True, [job(1), named_weights(2), job(2), named_weights(3)]),
        (False, [named_weights(3), job(1), job(2)]),
    ],
)
def test_commands_are_carried_out_in_order_or_with_the_newest_weights_first(
    ordered: bool, expected: list[dict[str, object]]
) -> None:
    box = inbox([job(1), named_weights(2), job(2), named_weights(3)], ordered=ordered)
    assert [box.next() for _ in expected] == expected
    assert not box.pending and box.arrived.empty()


def test_the_process_ends_and_removes_its_folder_when_nobody_writes_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(status: int) -> None:
        raise Stopped(status)

    monkeypatch.setattr(os, "_exit", ends)
    folder = tmp_path / "shared"
    folder.mkdir()
    box = inbox([], ordered=True)
    with pytest.raises(Stopped):
        box._read([json.dumps(job(4))], folder)
    assert box.next() == job(4) and not folder.exists()


def generator(policy: Policy, folder: Path) -> Generator:
    """One on the tiny model, whose files are written as a trainer writes them."""
    write_config(policy, folder / MODEL)
    write_weights(policy, folder / MODEL)
    spec = {
        "engine": "hf",
        "config": {"max_completion_length": 6},
        "model": {"device": "cpu"},
        "plugins": [],
        "seed": 3,
        "threads": torch.get_num_threads(),
        "reserved": [0, 0],
        "episodes": None,
    }
    return Generator(folder, spec)


def test_answers_are_those_of_the_engine_with_the_weights_it_took(tmp_path: Path) -> None:
    policy = make_policy()
    there = generator(policy, tmp_path)
    here = HFRollout(HFConfig(max_completion_length=6))
    here.start(policy, seed=3)
    asked = [Request(prompt=p, n=2) for p in make_prompts(policy, ["1+2=", "3+4="])]
    command = {
        "number": 5,
        "requests": [[r.prompt.ids.tolist(), r.n] for r in asked],
        "stream": ["t", 1, 0],
        "greedy": False,
        "part": [1, 2],
        "sampling": None,
    }
    for step in (1, 3):
        move(policy)
        save_weights(policy, weights_file(tmp_path, step))
        there.take_weights(step)
        here.sync(step)
        there.generate(command)
        expected = here.generate(GenerationCall(asked, ("t", 1, 0), part=slice(1, 2)))
        found = unpack(load_tree(tmp_path / "answer-5"))
        assert [g.response_ids.tolist() for g in found] == [
            g.response_ids.tolist() for g in chain(*expected)
        ]
        assert {int(v) for g in found for v in g.policy_version} == {step}
    assert not list(tmp_path.glob("weights-*"))


@pytest.mark.usefixtures("own_registry")
def test_episodes_are_played_with_the_user_s_class_and_tools(tmp_path: Path) -> None:
    """From the sections of a configuration and the plugins alone, as in another process."""
    users = Path(__file__).parents[1] / "environments" / "users" / "increment.py"
    import_plugin(str(users))
    sections = {
        "environment": {"name": "IncrementEnv", "time_limit": 5.0},
        "tools": [f"{users}:multiply"],
        "turns": {"max": 3},
        "journals": [str(tmp_path / "called-once")],
    }
    engine = in_turns(HFRollout(), sections, [str(users)])
    assert engine.limits.max == 3 and engine.environment.config.time_limit == 5
    names = [schema["function"]["name"] for schema in engine.environment.schemas({})]
    assert names == ["increment", "multiply"] and engine.environment.scores
    engine.environment.close()
