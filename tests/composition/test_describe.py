"""A run in words, and where its parts come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import algorithms.ppo
import rlkit
from rlkit.composition.config_files import configs_folder
from rlkit.composition.describe import (
    class_source,
    components,
    describe,
    prompts_in_words,
    source_of,
    uncorrected,
    user_sources,
)
from rlkit.composition.hydra_groups import import_before_compose
from tests.certain import HERE
from tests.compositions import composed


def test_the_arithmetic_of_a_step() -> None:
    settings = ("train.prompts_per_step=8", "rollout.num_generations=4", "train.steps=20")
    c = composed("buffer=on_policy", *settings, "train.minibatches=2", "train.updates_per_batch=3")
    names, batch, passes, *rest = describe(c)
    assert "loss=" in names and "buffer=on_policy" in names
    assert batch == "A step trains 8 groups of 4 = 32 responses, 8 of them fresh (32 generated)."
    assert passes == (
        "It takes 3 x 2 = 6 optimizer steps on 4 groups each; 20 training steps in all."
    )
    assert not [line for line in rest if "follows a schedule" in line]


@pytest.mark.parametrize(("warmup", "told"), [(21, True), (20, False)])
def test_a_warmup_longer_than_the_run_is_warned_of(warmup: int, told: bool) -> None:
    lines = describe(composed("train.steps=20", f"train.warmup_steps={warmup}"))
    said = [line for line in lines if "train.warmup_steps" in line]
    expected = "Warning: train.warmup_steps=21 is more than the run's 20 steps: "
    assert [line.startswith(expected) for line in said] == [True] * told


@pytest.mark.parametrize(
    ("algorithm", "buffer"), [("grpo", "stored"), ("sft", "expert"), ("vdpo", "pairs")]
)
def test_a_step_without_generation_counts_no_responses(algorithm: str, buffer: str) -> None:
    """How many a stored group has is known from the file alone."""
    batch = ("train.prompts_per_step=8", "rollout.num_generations=4")
    c = composed(f"algorithm={algorithm}", f"buffer={buffer}", *batch)
    assert describe(c)[1] == "A step trains 8 groups and generates nothing."


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        (("algorithm=grpo", "buffer=stored"), True),
        (("algorithm=ppo", "buffer=stored", "train.prompts_per_step=16"), True),
        (("algorithm=grpo", "buffer=stored", "loss=grpo_behavior"), False),
        (("algorithm=grpo", "buffer=stored", "correction=[tis]"), False),
        (("algorithm=topr", "buffer=stored"), False),
        (("algorithm=reinforce", "buffer=stored"), False),  # imitation needs no ratio
        (("algorithm=grpo",), False),
        (("algorithm=grpo", "buffer=fifo"), True),
        (("algorithm=grpo", "buffer=fifo", "loss.ratio_to=behavior"), False),
        (("algorithm=grpo", "buffer=fifo", "buffer.replay_fraction=0"), False),
        (("algorithm=chord",), False),  # demonstrations have no policy
        (("algorithm=grpo", "buffer=zero_variance_filler"), True),
        (("algorithm=grpo", "buffer=rlep"), True),
        (("algorithm=dro", "buffer=fifo"), False),  # which is meant for any
    ],
)
def test_a_ratio_that_knows_nothing_of_who_sampled_replayed_responses_is_warned_of(
    settings: tuple[str, ...], warned: bool
) -> None:
    lines = describe(composed(*settings))
    told = [line for line in lines if "corrects for older ones that sampled the replayed" in line]
    assert len(told) == warned
    assert not warned or "set loss.ratio_to=behavior, or correction=[tis]" in told[0]


@pytest.mark.slow
def test_no_composition_of_ours_replays_under_a_ratio_that_ignores_who_sampled() -> None:
    names = [path.stem for path in (configs_folder() / "algorithm").glob("*.yaml")]
    assert len(names) > 70
    found = [name for name in names if uncorrected(composed(f"algorithm={name}"))]
    assert found == ["rlep"], "whose ratio is that of its paper"


def test_an_average_in_the_place_of_prox_that_nothing_reads_is_said() -> None:
    """TOPR's ratio is to the policy that sampled."""
    read, unread = (composed(f"algorithm={name}", "anchor=ppo_ewma") for name in ("ppo", "topr"))
    assert "which no part of this run reads" in "\n".join(describe(unread))
    assert "which no part of this run reads" not in "\n".join(describe(read))


@pytest.mark.parametrize(
    ("settings", "enough", "words"),
    [
        (("schedule=reincarnate", "schedule.at=5"), 6, "schedule=reincarnate: the policy reincarn"),
        (("schedule=periodic", "schedule.every=5"), 6, "schedule=periodic: it fires every 5 steps"),
        (("anchor=tr_dpo", "anchor.every=5"), 6, "anchor=tr_dpo: the base moves every 5 steps"),
        (("anchor=periodic", "anchor.every=5"), 6, "anchor=periodic: the base moves every 5 steps"),
        (("buffer=rlep", "buffer.collect_steps=5"), 6, "buffer=rlep: nothing is replayed in the f"),
        # 8 x 0.5 groups of 4 make 16 a step: 80 in 5 steps and 96 in 6, of which more than 90
        (("buffer=spear", "buffer.size=60", "buffer.replay_fraction=0.5"), 6, "buffer=spear: repl"),
    ],
)
def test_what_a_run_is_too_short_for_is_warned_of(
    settings: tuple[str, ...], enough: int, words: str
) -> None:
    batch = ("train.prompts_per_step=8", "rollout.num_generations=4", "train.minibatches=1")
    short, long = (
        describe(composed(*settings, *batch, f"train.steps={steps}"))
        for steps in (enough - 1, enough)
    )
    warned = [line for line in short if line.startswith(f"Warning: {words}")]
    assert len(warned) == 1 and f"{enough - 1}" in warned[0]
    assert not any(line.startswith(f"Warning: {words}") for line in long)


def test_a_store_that_forgets_before_it_is_full_is_warned_of_in_any_run() -> None:
    """SPEAR's own size, 2,048, is for batches far larger than the default."""
    text = "\n".join(describe(composed("algorithm=spear", "train.steps=1000")))
    assert "replay begins when more than 3072 responses are stored, and 10 steps generate" in text


def test_a_pool_from_a_file_needs_no_steps() -> None:
    text = "\n".join(describe(composed("buffer=rlep", "buffer.pool=x", "train.steps=5")))
    assert "nothing is replayed" not in text


def test_replay_schedules_and_truncation_are_said() -> None:
    beta = "anchor.beta={kind: constant, start: 0.5}"
    c = composed("buffer=fifo", "train.prompts_per_step=8", "rollout.top_p=0.9", beta)
    text, fresh = "\n".join(describe(c)), c.buffer.fresh_share(8)
    assert fresh < 8 and f"and up to {8 - fresh} replayed." in text
    assert "anchor.beta follows a schedule: constant (start=0.5)." in text
    assert "Warning: top_p=0.9" in text


def test_a_loss_with_another_baseline_than_its_own_is_warned_of() -> None:
    own, other = (
        [line for line in describe(composed("loss=oapl", f"advantage={n}")) if "baseline" in line]
        for n in ("oapl", "group_norm")
    )
    assert not own and "not with advantage=group_norm" in other[0]


def test_each_part_is_named_with_the_hash_of_its_source() -> None:
    c = composed("loss=ppo", "reward=[exact]")
    found = components(c)
    assert found.keys() == c.every_part.keys() and found["reward.exact"]["name"] == "exact"
    source = Path(algorithms.ppo.__file__).read_bytes()
    assert found["loss"] == {
        "name": "ppo",
        "import_path": "algorithms.ppo:PPO",
        "version": f"rlkit-rft {rlkit.__version__}",
        "source_sha256": hashlib.sha256(source).hexdigest(),
        "config": c.parts.loss.config.model_dump(mode="json"),
    }


def test_a_class_from_a_shell_is_known_by_its_name() -> None:
    assert source_of(type("Made", (), {"__module__": "nowhere"})) == b"nowhere:Made"


def test_several_rewards_are_told_which_one_counts() -> None:
    def told(*overrides: str) -> list[str]:
        return [line for line in describe(composed(*overrides)) if "counts" in line]

    assert told("reward=[overlong,exact]") == [
        "Evaluation counts a response as right by the reward 'exact'."
    ]
    assert not told("reward=[exact]")


def test_notes_of_rewards_are_shown() -> None:
    lines = describe(composed("reward=[exact,overlong]", "reward.overlong.max_length=10"))
    assert any("reward.overlong.max_length=10 gives -1" in line for line in lines)


def test_the_code_of_a_user_is_known_by_module_and_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None
) -> None:
    """Parts, also those of a stage, and plug-ins; not rlkit's own, and no trackers."""
    monkeypatch.chdir(tmp_path)
    Path("plug.py").write_text("x = 1\n")
    own = composed(*import_before_compose([f"reward=[{HERE}:half]", "plugins=[./plug.py]"]))
    found = user_sources([own, composed("loss=grpo")])
    assert found == {
        "certain": hashlib.sha256(HERE.read_bytes()).hexdigest(),
        "plug": hashlib.sha256(b"x = 1\n").hexdigest(),
    }
    assert user_sources([composed("tracker=[tensorboard]")]) == {}


def test_a_class_of_a_script_stands_alone() -> None:
    """Its file also holds the call that resumes the run."""

    class Mine:
        """Of a script."""

    assert b"Of a script" in class_source(Mine) and b"stands_alone" not in class_source(Mine)
    assert class_source(type("Typed", (), {"__module__": "__main__"})) == b"Typed"


@pytest.mark.slow
def test_shares_of_a_mix_and_the_lag_of_pass_rates_are_told() -> None:
    parts = "task.parts={a: {kind: arithmetic, weight: 3}, b: {kind: arithmetic}}"
    mix = ("task=mixed", parts, "prompts.order=target")
    assert prompts_in_words(composed(*mix)) == ["Shares of the prompts: a 75%, b 25%."]
    told = prompts_in_words(composed(*mix, "rollout.mode=async", "rollout.max_staleness=3"))
    assert "pass rates that lack the last 3 steps" in told[-1]
    assert prompts_in_words(composed("rollout.mode=ahead")) == []
