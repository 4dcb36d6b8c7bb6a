"""From a composed configuration to parts: what is built, placed, and refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.config_files import configs_folder
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.plugins import KINDS
from rlkit.registry import entry, names
from rlkit.rewards.task import TaskReward
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedEngine, SharedRemote
from tests.compositions import composed, raw_of

EXPERIMENTS = sorted((configs_folder() / "experiment").glob("*.yaml"))


class Two(Processes):
    """The second of two."""

    rank, world_size = 1, 2


def test_every_part_is_the_one_chosen_with_the_settings_written() -> None:
    c = composed("algorithm=remix", "buffer=fifo", "buffer.window=3", "correction=[tis]")
    for kind, part in (("loss", c.parts.loss), ("buffer", c.buffer), ("anchor", c.parts.anchor)):
        assert type(part) is entry(kind, c.raw[kind]["name"]).cls
    assert c.buffer.config.model_dump()["window"] == 3
    ((name, correction),) = c.parts.corrections
    assert name == "tis" and type(correction) is entry("correction", "tis").cls
    assert c.config.output_dir == "out" and "console" in c.trackers


def test_a_scalar_schedule_is_kept_beside_the_part_which_starts_with_its_first_value() -> None:
    c = composed(
        "anchor.beta={kind: linear, start: 0.5, end: 1.0, steps: 4}",
        "train.learning_rate={kind: constant, start: 0.01}",
    )
    assert c.parts.anchor.config.beta == 0.5 and c.config.train.learning_rate == 0.01
    assert set(c.scalars) == {"anchor.beta", "train.learning_rate"}
    with pytest.raises(UserError, match=r"anchor\.beta=-1\.0 is not valid"):
        composed("anchor.beta={kind: linear, start: 0.5, end: -1, steps: 4}")
    with pytest.raises(UserError, match=r"train\.learning_rate=0\.0 is not valid"):
        composed("train.learning_rate={kind: linear, start: 0, end: 1, steps: 4}")


@pytest.mark.parametrize(
    ("mode", "processes", "kind"),
    [
        ("sync", SINGLE, None),
        ("sync", Two(), SharedEngine),
        ("ahead", SINGLE, RemoteEngine),
        ("ahead", Two(), SharedRemote),
    ],
)
def test_the_engine_is_placed_where_its_mode_says(
    mode: str, processes: Processes, kind: type[Any] | None
) -> None:
    c = composed(f"rollout.mode={mode}", processes=processes)
    assert type(c.rollouts) is (kind or type(c.engine))
    assert (c.rollouts is c.engine) == (kind is None)
    assert bool(c.trackers) == processes.is_main, "the main process has them"


def test_a_task_that_scores_brings_its_reward_unless_one_is_chosen() -> None:
    c = composed("task=arithmetic")
    (reward,) = c.rewards.values()
    assert isinstance(reward, TaskReward) and reward.task is c.task
    assert c.eval_rewards is c.rewards and c.eval_task is c.task
    assert list(composed("reward=[exact]").rewards) == ["exact"]
    other = composed("eval.task=arithmetic")
    (own,) = other.eval_rewards.values()
    assert isinstance(own, TaskReward) and own.task is other.eval_task is not other.task


def test_what_is_not_chosen_by_name_is_told_how() -> None:
    raw: dict[str, Any] = raw_of()
    for node in (None, "fifo", {"window": 3}):
        with pytest.raises(UserError, match="buffer must be chosen by name: buffer=<name>"):
            compose({**raw, "buffer": node})
    with pytest.raises(UserError, match="output_dir is missing"):
        compose({key: value for key, value in raw.items() if key != "output_dir"})


def lengths(c: Composition) -> dict[str, int | None]:
    """The settings of every part but the engine that say how long something is in tokens."""
    return {
        f"{section}.{key}": getattr(part.config, key)
        for section, part in c.every_part.items()
        if section != "rollout"
        for key in type(part.config).model_fields
        if key.endswith("_length")
    }


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [f.stem for f in EXPERIMENTS])
def test_an_experiment_has_one_source_of_every_length(experiment: str) -> None:
    """No other part states a length, and rewards that depend on it have the engine's."""
    c = composed(f"+experiment={experiment}", "model.name=some/model")
    longest = c.engine.config.max_completion_length
    assert set(lengths(c).values()) <= {None}
    for reward in c.every_reward:
        assert reward.context.max_completion_length == longest
        assert getattr(reward, "max_length", longest) == longest


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rollout"])
def test_no_part_but_the_engine_has_a_length_of_its_own(kind: str) -> None:
    """Neither a registered part or variant nor a variant file."""
    for name in names(kind):
        fields = entry(kind, name).config.model_fields
        assert not [
            key for key in fields if key.endswith("_length") and fields[key].default is not None
        ]
    for file in (configs_folder() / kind).glob("*.yaml"):
        assert not [key for key in yaml.safe_load(file.read_text()) if key.endswith("_length")]


def test_dapo_at_the_papers_scale_punishes_by_equation_13() -> None:
    """L = 20480 and C = 4096: nothing up to 16384 tokens, half of it at 18432, all at 20480."""
    overlong = composed("+experiment=dapo_paper", "model.name=some/model").rewards["overlong"]
    ids = [[0] * n for n in (513, 16384, 18432, 20480)]
    assert overlong(["p"] * 4, [""] * 4, completion_ids=ids) == [0.0, 0.0, -0.5, -1.0]


def test_a_length_that_contradicts_the_runs_is_refused_before_the_model_is_loaded() -> None:
    with pytest.raises(UserError, match="max_length=15 is never reached: .*_length=14"):
        composed("reward=[exact,overlong]", "reward.overlong.max_length=15")
    with pytest.raises(UserError, match="buffer=20 must not be larger than max_length=14"):
        composed("reward=[exact,overlong]", "reward.overlong.buffer=20")


def test_a_reward_that_only_evaluates_is_not_trained_on() -> None:
    c = composed("reward=[exact,overlong]", "reward.exact.evaluation_only=true")
    assert [*c.rewards] == ["overlong"] and [*c.eval_rewards] == ["overlong", "exact"]
    assert c.eval_rewards["overlong"] is c.rewards["overlong"]
    assert [*c.named_rewards] == ["overlong", "exact"] and c.judges.default == "exact"
    assert {"reward.overlong", "reward.exact"} <= c.every_part.keys()
    alone = composed("reward=[exact]", "reward.exact.evaluation_only=true")
    assert [*alone.rewards] == ["arithmetic"], "the task's own is trained on"
    assert [*alone.eval_rewards] == ["arithmetic", "exact"]
    same = composed("reward=[exact,overlong]")
    assert same.eval_rewards is same.rewards


def test_the_papers_experiment_has_two_reward_models_and_a_win_rate() -> None:
    """131,072 responses in all, as in the authors' configuration."""
    c = composed("+experiment=async_rlhf_paper")
    assert [*c.rewards] == ["model"] and [*c.eval_rewards] == ["model", "gold"]
    train, rollout = c.config.train, c.engine.config
    assert train.steps * train.prompts_per_step * rollout.num_generations == 131_072
    assert c.parts.loss.config.beta == 0.1 and rollout.mode == "ahead"
    assert c.config.eval.against.reward == c.judges.default == "gold"


def test_a_task_of_a_mix_is_trained_on_by_what_does_not_only_evaluate() -> None:
    """A reward chosen for evaluations alone leaves a task the reward of its own."""
    mix = "task.parts={a: {kind: arithmetic}, b: {kind: arithmetic, reward: [math]}}"
    c = composed("task=mixed", mix, "reward=[exact]", "reward.exact.evaluation_only=true")
    assert [*c.rewards] == ["a/arithmetic", "b/math"]
    assert [*c.eval_rewards] == ["a/arithmetic", "b/math", "exact"]
    assert all(c.eval_rewards[name] is reward for name, reward in c.rewards.items())
    only = c.eval_rewards["exact"]
    assert only.applies_to_task("a") and not only.applies_to_task("b")
    unused = "task.parts={a: {kind: arithmetic}, b: {kind: arithmetic, weight: 0, reward: GOLD}}"
    gold = unused.replace("GOLD", "[{kind: exact, evaluation_only: true}]")
    assert [*composed("task=mixed", gold).rewards] == ["a/arithmetic"]
