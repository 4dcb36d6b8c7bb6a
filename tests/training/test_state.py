"""What a run has done so far: counters, fields that schedules set, checkpoints there and back."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlkit.config.run import ModelConfig
from rlkit.config.saving import CheckpointConfig
from rlkit.errors import UserError
from rlkit.interfaces import Phase, Progress
from rlkit.models.load import given_policy
from rlkit.models.policy import Policy
from rlkit.rollout.hf import HFRollout
from rlkit.runs.checkpoint import CheckpointError, list_checkpoints, load_tree
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
from rlkit.training import state as state_module
from rlkit.training.counters import Counters, load_counters
from rlkit.training.state import Session, TrainState
from rlkit.training.trainer import Trainer
from schedules.never import Never
from tests.sessions import config_of, heard, make_session
from tests.steps import ROWS, parts
from tests.tiny import make_policy


def test_a_stage_begins_at_step_0_after_those_before_it() -> None:
    count = Counters(step=4, stage=1, offset=6, rollouts=80, values={"anchor.beta": 0.1})
    assert count.done == 10
    after = count.next_stage()
    assert (after.step, after.stage, after.offset, after.done) == (0, 2, 10, 10)
    assert after.rollouts == 80 and after.values == {}, "what a schedule set was the stage's own"


def state_of(policy: Policy, folder: Path, count: Counters | None = None) -> TrainState:
    return TrainState(make_session(policy, folder), count or Counters())


def test_a_field_is_set_through_the_config_that_owns_it(policy: Policy, tmp_path: Path) -> None:
    state = state_of(policy, tmp_path)
    before = state.session.parts.anchor.config
    state.set_field("anchor.beta", 0.25)
    state.set_field("anchor.horizon", 7.6)
    state.set_field("train.learning_rate", 0.5)
    anchor = state.session.parts.anchor.config
    assert anchor.beta == 0.25 and before.beta != 0.25
    assert anchor.horizon == 8 and type(anchor.horizon) is int, "a whole number stays one"
    assert state.updater.config.learning_rate == 0.5
    assert state.count.values == {
        "anchor.beta": 0.25,
        "anchor.horizon": 8,
        "train.learning_rate": 0.5,
    }


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("anchor.beta", -1.0, "anchor.beta=-1.0 is not valid: it must be greater than or equal"),
        ("anchor.bta", 1, "has no such field. Did you mean 'anchor.beta'?"),
        ("ancor.beta", 1, "has no such field: it begins with one of .*anchor"),
    ],
)
def test_a_field_that_a_schedule_sets_wrongly_is_told_in_one_line(
    policy: Policy, tmp_path: Path, name: str, value: float, said: str
) -> None:
    with pytest.raises(UserError, match=f"the schedule sets {name}, but .*{said}"):
        state_of(policy, tmp_path).set_field(name, value)


@pytest.mark.parametrize(
    ("best", "now", "kept"),
    [(None, 0.0, (0.0, 3)), (0.5, 0.5, (0.5, 3)), (0.5, 0.4, (0.5, 1)), (0.2, 0.4, (0.4, 3))],
)
def test_the_best_evaluation_is_the_latest_of_equal_ones(
    policy: Policy, tmp_path: Path, best: float | None, now: float, kept: tuple[float, int]
) -> None:
    count = Counters(step=3, eval={"eval/pass@1": now}, eval_step=3)
    count.best, count.best_step = best, None if best is None else 1
    state = state_of(policy, tmp_path, count)
    state.save(needed=False)
    assert (count.best, count.best_step) == kept
    assert asdict(load_counters(tmp_path / "checkpoint-3")) == asdict(count)


def test_an_old_evaluation_is_not_the_best_of_a_new_checkpoint(
    policy: Policy, tmp_path: Path
) -> None:
    count = Counters(step=3, eval={"eval/pass@1": 1.0}, eval_step=2)
    state_of(policy, tmp_path, count).save(needed=False)
    assert count.best is None and count.best_step is None


def test_old_checkpoints_go_and_the_best_stays(policy: Policy, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config = config.model_copy(update={"checkpoint": CheckpointConfig(keep=1)})
    state = TrainState(make_session(policy, tmp_path, config=config), Counters())
    for step in (1, 2, 3):
        state.count.step = step
        state.count.eval, state.count.eval_step = {"eval/pass@1": float(step == 1)}, step
        state.save(needed=False)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3"]


def full_disk(*args: object) -> None:
    raise CheckpointError("no space left")


def test_a_checkpoint_that_cannot_be_written_is_told_and_is_not_the_best(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "write_checkpoint", full_disk)
    count = Counters(step=3, eval={"eval/pass@1": 0.5}, eval_step=3)
    state = state_of(policy, tmp_path, count)
    state.save(needed=False)
    assert heard(state.session).lines == [
        "checkpoint-3 could not be written (no space left); those before it stay."
    ]
    assert (count.best, count.best_step) == (None, None)


@pytest.mark.parametrize("place", ["part", "tree", "model"])
def test_no_exception_in_a_checkpoint_ends_the_run(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fails(*args: object, **settings: object) -> dict[str, object]:
        raise ValueError("over\nlines")

    count = Counters(step=3, eval={"eval/pass@1": 0.5}, eval_step=3)
    state = state_of(policy, tmp_path, count)
    if place == "part":
        monkeypatch.setattr(state.session.schedule, "state_dict", fails)
    elif place == "tree":
        monkeypatch.setattr(state.session.schedule, "state_dict", lambda: {"seen": {1}})
    else:
        monkeypatch.setattr(policy.model, "save_pretrained", fails)
    state.save(needed=False)
    (line,) = heard(state.session).lines
    reason = "TypeError: state schedule.seen" if place == "tree" else "ValueError: over lines"
    assert line.startswith(f"checkpoint-3 could not be written ({reason}"), line
    assert list_checkpoints(tmp_path) == [] and not list(tmp_path.glob(".checkpoint*"))
    assert (count.best, count.best_step) == (None, None)
    with pytest.raises(UserError, match="could not be written"):
        state.save(needed=True)


@pytest.mark.parametrize(("needed", "on_error"), [(True, "continue"), (False, "stop")])
def test_a_needed_checkpoint_that_cannot_be_written_ends_the_run(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool, on_error: str
) -> None:
    monkeypatch.setattr(state_module, "write_checkpoint", full_disk)
    config = config_of(tmp_path)
    changed = CheckpointConfig.model_validate({"on_error": on_error})
    session = make_session(
        policy, tmp_path, config=config.model_copy(update={"checkpoint": changed})
    )
    with pytest.raises(UserError, match="no space left.*continue with resume=auto"):
        TrainState(session, Counters(step=3)).save(needed=needed)


def trained(folder: Path, steps: int) -> tuple[Session, TrainState]:
    session = make_session(make_policy(), folder, config=config_of(folder, steps=steps))
    trainer = Trainer(session)
    trainer.run()
    return session, trainer.state


def test_a_loaded_checkpoint_is_the_state_that_was_saved(tmp_path: Path) -> None:
    session, state = trained(tmp_path / "a", 2)
    session.prompts.take(1)
    state.set_field("anchor.beta", 0.125)
    session.engine.load_state_dict({"most": 3})
    state.updater.micro.halve(1)
    state.count.step = 3
    state.save(needed=True)
    saved = state.state_dict()
    checkpoint = tmp_path / "a" / "checkpoint-3"
    other = make_policy()
    other.model.load_state_dict(session.policy.model.state_dict())
    again = TrainState(make_session(other, tmp_path / "b"), Counters())
    torch.rand(3)
    again.load(checkpoint)
    assert again.session.parts.anchor.config.beta == 0.125
    assert again.session.engine.state_dict() == {"shares_prompts": True, "most": 3}
    assert again.updater.micro.tokens == 100, "half of the 200 that are set"
    found = again.state_dict()
    assert found.keys() == saved.keys()
    for name in found.keys() - {"updater", "anchor", "rng"}:
        assert found[name] == saved[name], name
    for name in ("updater", "anchor", "rng"):
        for ours, theirs in zip(leaves(found[name]), leaves(saved[name]), strict=True):
            assert ours == theirs, name


def leaves(tree: object) -> list[object]:
    """The numbers of a tree, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in leaves(each)]
    return tree.flatten().tolist() if isinstance(tree, torch.Tensor) else [tree]


class ResetAt(Never):
    """A new optimizer at a step."""

    at = 4

    def phase(self, progress: Progress) -> Phase:
        reset = progress.step == self.at
        return Phase(name="all", events=frozenset({"reset_optimizer"} if reset else ()))


def half_session(policy: Policy, folder: Path, steps: int) -> Session:
    """Updates smaller than the rounding of bfloat16, of the policy and a critic."""
    train = {"learning_rate": 1e-6, "critic_learning_rate": 1e-6}
    return make_session(
        policy,
        folder,
        config=config_of(folder, steps=steps, **train),
        parts=parts(loss="ppo", anchor="base", advantage="gae"),
        schedule=ResetAt(),
    )


def test_a_run_in_bfloat16_resumes_bit_for_bit(tmp_path: Path) -> None:
    """By its float32 masters, of the policy and the critic, through an event that resets."""
    whole = Trainer(half_session(make_policy(half=True), tmp_path / "whole", 4))
    whole.run()
    Trainer(half_session(make_policy(half=True), tmp_path / "part", 2)).run()
    checkpoint = tmp_path / "part" / "checkpoint-2"
    weights = load_file(checkpoint / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    kept = load_tree(checkpoint / "state" / "updater")
    for name in ("optimizer", "critic_optimizer"):
        masters = kept[name]["masters"].values()
        assert {master.dtype for master in masters} == {torch.float32}
        assert not all(torch.equal(master, master.bfloat16()) for master in masters)
    tiny = make_policy(seed=1, half=True)
    given = (tiny.model, tiny.tokenizer)
    policy = given_policy(ModelConfig(device="cpu"), given, 1.0, checkpoint=checkpoint)
    trainer = Trainer(half_session(policy, tmp_path / "rest", 4))
    trainer.state.load(checkpoint)
    trainer.run()
    assert leaves(trainer.state.updater.state_dict()) == leaves(whole.state.updater.state_dict())
    expected = whole.session.policy.model.state_dict()
    for name, value in policy.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("invariant", "matches", "behavior"),
    [(True, True, "own"), (False, True, "rounded"), (True, False, "foreign")],
)
def test_the_scorer_knows_what_the_engines_log_probs_are(
    policy: Policy, tmp_path: Path, invariant: bool, matches: bool, behavior: str
) -> None:
    session = make_session(policy, tmp_path)

    class Engine(HFRollout):
        matches_trainer = matches

    class Model(Policy):
        batch_invariant = invariant

    changed = replace(
        session,
        engine=Engine(session.engine.config),
        policy=Model(policy.model, policy.tokenizer, 1.0),
    )
    assert TrainState(changed, Counters()).scorer.behavior == behavior


def test_a_checkpoint_goes_on_with_its_own_data_alone(policy: Policy, tmp_path: Path) -> None:
    """The same rows in another order: places of the order would mean other prompts."""
    state_of(policy, tmp_path, Counters(step=1)).save(needed=True)

    def resumed(rows: list[dict[str, str]], force: tuple[str, ...] = ()) -> TrainState:
        config = config_of(tmp_path).model_copy(update={"resume_force": force})
        stream = PromptStream(Prompts("train", rows, policy.tokenizer), 0, 2, 6)
        folder = tmp_path / f"{rows[0]['prompt']} {force}"
        state = TrainState(make_session(policy, folder, config=config, prompts=stream), Counters())
        state.load(tmp_path / "checkpoint-1")
        return state

    assert resumed(list(ROWS)).count.step == 1
    with pytest.raises(UserError, match=r"checkpoint-1 was made with other data.*another order"):
        resumed(ROWS[::-1])
    assert resumed(ROWS[::-1], ("task.data",)).count.step == 1
