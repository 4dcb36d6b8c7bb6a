"""Settings without effect are told, and no others."""

from __future__ import annotations

import pytest

from rlkit.composition.unread import CONDITIONS, unread
from tests.compositions import composed


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ("rollout.max_staleness=2", "rollout.mode=async"),
        ("rollout.round_tokens=64", "rollout.oversample=0.5"),
        ("train.critic_learning_rate=1e-3", "algorithm=ppo"),
        ("model.lora.alpha=8", "model.lora.r=2"),
        ("loss.norm_length=9", "loss.aggregation=token-sum-norm"),
        ("turns.max=3", "environment=calculator"),
        ("anchor.beta=0.04", "anchor=base"),
        ("anchor.beta={kind: linear, start: 0.1, end: 0, steps: 5}", "anchor=kl_convex"),
        ("anchor.horizon=9", "anchor.target_kl=0.1"),
        ("prompts.target=0.3", "prompts.order=target"),
        ("rollout.draft_bias=-0.5", "rollout.draft=spec_rl"),
        ("rollout.behavior_rounds=3", "rollout.behavior=props"),
        ("train.adam_beta1=0.8", "train.optimizer=adamw"),
        ("rollout.num_generations=4", "buffer=on_policy"),
        ("eval.template=chat", "eval.on=[gsm8k]"),
    ],
)
def test_a_setting_that_nothing_reads_is_told_with_what_would_read_it(
    given: str, needed: str
) -> None:
    key = given.partition("=")[0]
    if "eval.on" not in needed:  # whose problems would have to be there
        assert unread([composed(given, needed)], [given, needed]) == []
    # without an anchor, Adam's moments or generation
    lacks = ["algorithm=grpo", "train.optimizer=adafactor", "loss.ratio_to=behavior"]
    lacks += ["buffer=stored"] if "num_generations" in given else []
    (line,) = unread([composed(*lacks, given)], [*lacks, given, "train.steps=3"])
    assert line.startswith(f"Warning: {key} has no effect here: it needs ")


def test_one_stage_that_reads_a_setting_is_enough() -> None:
    given = "rollout.max_staleness=2"
    stages = [composed(given), composed(given, "rollout.mode=async")]
    assert unread(stages, [given]) == [] and unread(stages[:1], [given])


def test_what_was_not_given_is_not_told() -> None:
    assert unread([composed()], ["train.learning_rate=1e-3", "+experiment=x", "~a"]) == []
    assert len({condition.key for condition in CONDITIONS}) == len(CONDITIONS)
