"""Episodes in training: gradients, lag, replay, kills, other processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

import rlkit
from rlkit.batch import Group, Prompt, Request
from rlkit.config.turns import TurnsConfig
from rlkit.interfaces import Observation, Tokens, asked_ids
from rlkit.models.policy import Policy
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.shared import SharedEngine
from rlkit.rollout.source import OnDemand
from rlkit.rollout.turns import TurnsEngine
from rlkit.stored.read import StoredRollouts
from rlkit.tasks.prompts import Prompts
from rlkit.training.collect import Collector
from tests.rollout.echo import ROWS, Echo, EchoConfig, chat_policy
from tests.rollout.test_shared import Rank
from tests.rollout.test_turns import call_of, engine_of, flat, runs_of, same
from tests.steps import move, parts, plan_of, prepared, updater_of

SMALL = (
    "train.steps=4",
    "train.prompts_per_step=2",
    "rollout.num_generations=3",
    "rollout.max_completion_length=40",
    "eval.problems=2",
    "eval.every=null",
    "train.learning_rate=0.01",
    "task.chat_template=always",
    "checkpoint.every=1",
)
TIMES = ("time/", "throughput/", "memory/", "perf/")


def says_one(completions: Sequence[Any], **columns: object) -> list[float]:
    """A point for a 1 in any of the policy's turns."""
    own = [[m["content"] for m in c if m["role"] == "assistant"] for c in completions]
    return [float(any("1" in text for text in texts)) for texts in own]


def trained(folder: Path, *overrides: str, environment: str = "Echo", **keywords: Any) -> Any:
    policy = chat_policy()
    return rlkit.train(
        "algorithm=grpo",
        f"environment={environment if ':' in environment else f'{__name__}:{environment}'}",
        "environment.greets=true",
        *SMALL,
        *overrides,
        model=policy.model,
        tokenizer=policy.tokenizer,
        dataset=ROWS,
        reward=[says_one, "environment"],
        output_dir=folder,
        **keywords,
    )


def steady(run: Any) -> list[dict[str, float]]:
    """The metrics that do not depend on the clock."""
    return [{k: v for k, v in m.items() if not k.startswith(TIMES)} for m in run.metrics]


def weights_of(run: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint / "model.safetensors")
    return found


def equal(one: Any, two: Any) -> bool:
    first, second = weights_of(one), weights_of(two)
    return all(torch.equal(first[name], second[name]) for name in first)


# ---- gradients


def collected(policy: Policy, step: int, **fields: Any) -> list[Group]:
    """Groups of episodes, scored, with an added text in their prompts."""
    engine = engine_of(policy, Echo(EchoConfig(greets=True)), **fields)
    engine.sync(step)
    rewards = RewardSet({"one": reward_class(says_one)()})
    source, advantage = OnDemand(engine, greedy=False), rlkit.build("advantage", "group_norm")
    chosen = Prompts("train", ROWS, policy.tokenizer)[:4]
    plan = plan_of([Request(prompt=p, n=3) for p in chosen], step)
    return Collector(source, rewards, advantage, policy.tokenizer).collect(plan, 0).groups


def in_pieces(groups: Sequence[Group], advantages: torch.Tensor) -> list[Group]:
    """Each turn as a response of its own, after all that came before it; one group each."""
    out: list[Group] = []
    samples = [(g.prompt, s) for g in groups for s in g.samples]
    for (prompt, sample), advantage in zip(samples, advantages.tolist(), strict=True):
        asked = sample.extras["prompt_ids"]
        assert isinstance(asked, torch.Tensor)
        for mine, start, end in runs_of(sample.loss_mask):
            if not mine:
                continue
            before = torch.cat([asked, sample.response_ids[:start]])
            number = len(out)
            turn = replace(
                sample,
                sample_id=number,
                response_ids=sample.response_ids[start:end],
                loss_mask=sample.loss_mask[start:end],
                behavior_logp=sample.behavior_logp[start:end],
                policy_version=sample.policy_version[start:end],
                reward=advantage,
                extras={},
            )
            own = Prompt(
                prompt_id=f"{number}", text_or_messages="", ids=before, columns=prompt.columns
            )
            out.append(Group(prompt=own, samples=[turn]))
    return out


def gradient(policy: Policy, groups: list[Group], step: int, advantage: Any) -> torch.Tensor:
    """Of the whole batch, under token-mean; `move` has made the ratios differ from 1."""
    chosen = replace(parts(loss="ppo"), advantage=advantage)
    loss = type(chosen.loss)(chosen.loss.config.model_copy(update={"aggregation": "token-mean"}))
    chosen = replace(chosen, loss=loss)
    batch = prepared(policy, groups, step, chosen)
    updater = updater_of(policy, chosen, prompts_per_step=len(groups), max_grad_norm=1e9)
    taken: list[torch.Tensor] = []

    def keep(norm: float) -> float:
        grads = [p.grad for p in policy.model.parameters() if p.grad is not None]
        taken.append(torch.cat([grad.flatten() for grad in grads]))
        return 0.0

    updater.learner.clip = keep  # type: ignore[method-assign, assignment]
    updater.run(batch, 1, step)
    return taken[0]


def test_an_episode_in_one_piece_and_turn_by_turn_gives_the_same_gradient() -> None:
    """Behavior log-probs of weights one move away; every shown token is without effect."""
    policy = chat_policy()
    groups = collected(policy, 3)
    move(policy)
    chosen = replace(parts(loss="ppo"), advantage=rlkit.build("advantage", "group_norm"))
    batch = prepared(policy, groups, 4, chosen)
    advantages = torch.tensor(
        [float(a[m][0]) for a, m in zip(batch.loss.advantage, batch.loss.mask, strict=True)]
    )
    assert advantages.abs().max() > 0.5
    whole = gradient(policy, groups, 4, rlkit.build("advantage", "group_norm"))
    outcome = rlkit.build("advantage", "reward", scale=1.0, shift=0.0)
    pieces = in_pieces(groups, advantages)
    assert len(pieces) > len(advantages) + 3
    apart = gradient(policy, pieces, 4, outcome)
    assert float((whole - apart).norm() / whole.norm()) < 1e-5


def test_what_the_tokens_shown_carry_changes_nothing() -> None:
    """Other log-probs at masked places: gradient, metrics and scores stay, bit for bit."""
    policy = chat_policy()
    groups = collected(policy, 3)
    move(policy)
    spoiled = [
        Group(
            prompt=g.prompt,
            samples=[
                replace(s, behavior_logp=torch.where(s.loss_mask, s.behavior_logp, -7.0))
                for s in g.samples
            ],
        )
        for g in groups
    ]
    both, weights = [], {k: v.clone() for k, v in policy.model.state_dict().items()}
    for some in (groups, spoiled):
        policy.model.load_state_dict(weights)
        chosen = parts(loss="remix", anchor="kl_convex", advantage="gae")
        chosen.anchor.rebase(policy)
        batch = prepared(policy, some, 4, chosen)
        result = updater_of(policy, chosen).run(batch, 1, 4)
        both.append((dict(result.metrics), {k: v.entropy for k, v in result.scores.items()}))
    assert both[0] == both[1]


# ---- whose weights


def test_lagging_weights_are_the_versions_of_their_tokens(tmp_path: Path) -> None:
    """Synced every three steps: ages 0, 1, 2, 0, and the log-probs are those of that version."""
    run = trained(tmp_path, "rollout.sync_every=3")
    steps = [m for m in run.metrics if "off_policy/staleness_max" in m]
    assert [m["off_policy/staleness_max"] for m in steps] == [0, 1, 2, 0]
    assert [m["off_policy/staleness_mean"] for m in steps] == [0, 1, 2, 0]
    assert [abs(m["off_policy/ess"] - 1) < 1e-6 for m in steps] == [True, False, False, True]


def test_a_later_policy_finds_the_log_probs_of_the_one_that_sampled() -> None:
    policy = chat_policy()
    engine = engine_of(policy, sync_every=3)
    old = {name: value.clone() for name, value in policy.model.state_dict().items()}
    move(policy)
    call = call_of(policy)
    found = engine.generate(call)
    policy.model.load_state_dict(old)
    for request, group in zip(call.requests, found, strict=True):
        for g in group:
            whole = policy.logp(Tokens.of([request.prompt.ids], [g.response_ids]))[0]
            torch.testing.assert_close(g.logp[g.loss_mask], whole[g.loss_mask], atol=1e-5, rtol=0)


# ---- other processes


@pytest.mark.slow
def test_a_process_of_its_own_plays_the_same_episodes(tmp_path: Path) -> None:
    """Mode async without staleness is the synchronous run; ahead is one step behind."""
    here = trained(tmp_path / "sync")
    apart = trained(
        tmp_path / "async",
        "rollout.mode=async",
        "rollout.max_staleness=0",
        "rollout.deterministic=true",
    )
    assert equal(here, apart)
    own = [
        {k: v for k, v in m.items() if "ahead" not in k and "dropped" not in k}
        for m in steady(apart)
    ]
    assert own == steady(here)
    ahead = trained(tmp_path / "ahead", "rollout.mode=ahead")
    stale = [m["off_policy/staleness_max"] for m in ahead.metrics if "turns/mean" in m]
    assert stale == [0, 1, 1, 1]


def test_ranks_play_what_one_process_would() -> None:
    policy = chat_policy()
    call = call_of(policy)
    whole = engine_of(policy).generate(call)
    for rank in (0, 1):
        other = flat(whole[2:] if rank == 0 else whole[:2])
        inner = TurnsEngine(
            HFRollout(HFConfig(max_completion_length=60, num_generations=3)), Echo(), TurnsConfig()
        )
        shared = SharedEngine(inner, Rank(rank, other))
        assert shared.uses_policy and not shared.main_asks
        shared.start(policy, 5)
        shared.sync(3)
        found = shared.generate(call)
        assert all(same(a, b) for a, b in zip(flat(found), flat(whole), strict=True))


# ---- kills


class Dying(Echo):
    """Raises in the middle of an episode of some step, once."""

    alive: ClassVar[int] = -1

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        Dying.alive -= 1
        if Dying.alive == 0:
            raise KeyboardInterrupt
        return super().step(episodes, turns)


@pytest.mark.slow
def test_a_run_killed_between_turns_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """ReMix with replay: stored episodes keep their masks, and the prompts they were made after."""
    asked = ("algorithm=remix", "buffer.replay_fraction=0.5")
    whole = trained(tmp_path / "whole", *asked, environment="Dying")
    assert any(m.get("buffer/fresh_fraction", 1) < 1 for m in whole.metrics)
    calls = -1 - Dying.alive
    assert calls > 8
    Dying.alive = calls // 2
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", *asked, environment="Dying")
    done = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert 1 < len(done) < 5, "in the middle of the run"
    again = trained(tmp_path / "killed", *asked, environment="Dying", resume="auto")
    assert equal(whole, again) and steady(whole) == steady(again)


@pytest.mark.slow
def test_completions_show_the_turns_and_rewards_saw_them(tmp_path: Path) -> None:
    run = trained(tmp_path, "rollout.save=true")
    several = 0
    for row in run.completions(1):
        turns = row["turns"]
        assert [turn["role"] for turn in turns[:2]] == ["prompt", "policy"]
        assert turns[-1]["role"] == "policy"
        said = [turn["text"] for turn in turns if turn["role"] == "policy"]
        assert row["rewards"]["says_one"] == float(any("1" in text for text in said))
        assert row["observation_tokens"] == 0 or len(said) > 1
        several += len(said) > 1
    assert several
    stored = StoredRollouts(str(tmp_path))
    kept = [(g, s) for g in stored.groups(range(len(stored))) for s in g.samples]
    assert len(kept) == 24
    for row, (group, sample) in zip(run.completions(1), kept[:6], strict=True):
        assert int((~sample.loss_mask).sum()) == row["observation_tokens"]
        text = chat_policy().tokenizer.decode(asked_ids(group.prompt, sample))
        assert text == row["turns"][0]["text"]
    (first, *_) = [m for m in run.metrics if "turns/mean" in m]
    assert first["tools/calls"] > 0 and first["turns/observation_tokens"] > 0


def test_without_an_environment_nothing_is_new(tmp_path: Path) -> None:
    policy = chat_policy()
    run = rlkit.train(
        "algorithm=grpo",
        *SMALL,
        "train.steps=1",
        model=policy.model,
        tokenizer=policy.tokenizer,
        dataset=ROWS,
        reward=has_some,
        output_dir=tmp_path,
    )
    assert not any(key.startswith(("turns/", "tools/")) for m in run.metrics for key in m)
    assert not any("turns" in row or "observation_tokens" in row for row in run.completions(1))
    named = json.loads((tmp_path / "components.json").read_text())
    assert "environment" not in named


def has_some(completions: Sequence[Any], **columns: object) -> list[float]:
    return [float(len(c[-1]["content"]) % 2) for c in completions]
