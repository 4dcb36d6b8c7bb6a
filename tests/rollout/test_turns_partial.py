"""Episodes that go on in the next step: tokens, log-probs, versions, the pool, resumes, runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from rlkit.environments.rendering import observation_ids
from rlkit.interfaces import EpisodeContext, Observation, Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation
from rlkit.rollout.played import OBSERVED, RESTARTED, TURNS
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.source import Completed
from rlkit.rollout.turns_partial import Before, PartialTurns, Playing, piece
from rlkit.runs.checkpoint import load_tree, save_tree
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
from tests.rollout.echo import ROWS, Echo, EchoConfig, chat_policy
from tests.rollout.test_turns import engine_of, flat, runs_of, same
from tests.rollout.test_turns_in_training import equal, steady, trained
from tests.steps import drawing, move


class Noting(Echo):
    """Says in the prompt what it draws at the start, and remembers its episodes' turns."""

    def begin(self, starts: Sequence[Any]) -> list[str | None]:
        super().begin(starts)
        return [str(start.seed % 1000) for start in starts]


def pool_of(
    policy: Policy, environment: Echo | None = None, *, greedy: bool = False, **fields: Any
) -> PartialTurns:
    settings = {"oversample": 1.0, "round_tokens": 4, "max_completion_length": 30, **fields}
    engine = engine_of(policy, environment or Noting(EchoConfig(until=7)), **settings)
    engine.sync(1)
    return PartialTurns(engine, greedy=greedy)


def stream_of(policy: Policy) -> PromptStream:
    return PromptStream(Prompts("train", ROWS, policy.tokenizer), 0, 3, 30)


def take(pool: PartialTurns, prompts: PromptStream, step: int) -> list[Completed]:
    pool.engine.sync(step)
    plan = drawing(prompts, step, 2, 3)
    pool.begin(plan)
    return pool.completed(plan, None, 0)


def responses(groups: Sequence[Completed]) -> list[Generation]:
    return flat([group.own for group in groups])


def alike(one: Sequence[Completed], two: Sequence[Completed]) -> bool:
    """Bit for bit, with log-probs and versions."""
    pairs = list(zip(responses(one), responses(two), strict=True))
    return all(
        same(a, b)
        and torch.equal(a.logp, b.logp)
        and torch.equal(a.policy_version, b.policy_version)
        for a, b in pairs
    )


def test_a_piece_is_a_turn_with_its_own_tokens() -> None:
    whole = Generation(
        response_ids=torch.tensor([3, 4, 5, 6]),
        logp=torch.tensor([-1.0, -2.0, 0.0, -4.0]),
        policy_version=torch.tensor([1, 1, 1, 2], dtype=torch.int32),
        finish_reason="open",
        extras={"x": torch.tensor([0.1, 0.2, 0.3, 0.4]), "y": 2.0},
    )
    before = Before(whole, [2, 1, 1])
    assert before.settled == 3
    turn = before.turn(0)
    assert turn.response_ids.tolist() == [3, 4] and turn.logp.tolist() == [-1.0, -2.0]
    assert before.turn(1).policy_version.tolist() == [2] and before.turn(1).extras["y"] == 2.0
    assert piece(whole, 1, 3).extras["x"].tolist() == pytest.approx([0.2, 0.3])  # type: ignore[union-attr]
    assert piece(whole, 3, 3).response_ids.tolist() == []


def test_each_token_keeps_its_owner_log_prob_and_version() -> None:
    """The weights move between steps: each version's tokens have that version's log-probs."""
    policy = chat_policy()
    pool, prompts = pool_of(policy, top_k=9), stream_of(policy)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    found: list[tuple[Completed, Generation]] = []
    for step in (1, 2, 3, 4):
        kept[step] = {name: value.clone() for name, value in policy.model.state_dict().items()}
        found += [(group, g) for group in take(pool, prompts, step) for g in group.own]
        move(policy)
    mixed = several = 0
    for group, g in found:
        assert g.played is not None and g.played.prompt_ids is not None
        assert len(g.response_ids) <= 30 and g.finish_reason != "open"
        stretches = runs_of(g.loss_mask)
        assert stretches[0][0] and stretches[-1][0]
        assert g.played.counts[TURNS] == sum(mine for mine, _, _ in stretches)
        assert g.played.counts[OBSERVED] == int((~g.loss_mask).sum())
        assert g.played.counts[RESTARTED] == 0
        messages = g.played.messages
        said = [m["content"] for m in messages if m["role"] == "assistant"]
        own = [g.response_ids[a:b] for mine, a, b in stretches if mine]
        assert [policy.tokenizer.decode(ids) for ids in own[:-1]] == said[: len(own) - 1]
        shown = [g.response_ids[a:b] for mine, a, b in stretches if not mine]
        for turn, ids, message in zip(own, shown, messages[1::2], strict=False):
            assert ids.tolist() == observation_ids(policy.tokenizer, turn.tolist(), [message])
        versions = g.policy_version
        assert (versions.diff() >= 0).all()
        for version in set(versions.tolist()):
            policy.model.load_state_dict(kept[version])
            whole = policy.logp(Tokens.of([g.played.prompt_ids], [g.response_ids]))[0]
            mine = g.loss_mask & (versions == version)
            torch.testing.assert_close(g.logp[mine], whole[mine], atol=1e-5, rtol=0)
        kept_mass = g.extras[KEPT]
        assert isinstance(kept_mass, torch.Tensor) and len(kept_mass) == len(versions)
        mixed += len(set(versions.tolist())) > 1
        several += len(own) > 1
        starts = {str(other.played.asked) for other in group.own if other.played}
        assert len(starts) == 1, "the episodes of a group start alike"
    assert mixed > 3 and several > 3


def test_every_episode_that_was_begun_is_used_and_ended_once() -> None:
    policy = chat_policy()
    environment = Noting(EchoConfig(until=7))
    pool, prompts = pool_of(policy, environment), stream_of(policy)
    taken = [group for step in range(1, 6) for group in take(pool, prompts, step)]
    over = sum(len(group.own) for group in taken)
    waiting = [g for group in pool.pool for i, g in enumerate(group.own) if i not in group.live]
    live = [episode.id for group in pool.pool for episode in group.live.values()]
    assert len(environment.starts) == pool.number == over + len(waiting) + len(live)
    assert len(set(environment.ended)) == len(environment.ended) == over + len(waiting)
    assert pool.held == set(live) and live
    assert sum(g.played.counts["calls"] for g in responses(taken) if g.played) == sum(
        len(environment.turns[e]) for e in environment.ended
    ) - sum(g.played.counts["calls"] for g in waiting if g.played)
    partial, left, continued = pool.metrics().values()
    assert partial == sum(bool(group.live) for group in pool.pool)
    assert left == len(pool.pool) - partial and 0 <= continued < 1


FINE: dict[str, Any] = {"top_k": 9, "round_tokens": 2, "max_completion_length": 40}


def saved(pool: PartialTurns, folder: Path) -> Any:
    save_tree(folder / "supply", pool.state_dict())
    return load_tree(folder / "supply")


def begun(policy: Policy) -> tuple[PartialTurns, PromptStream, int]:
    """A pool in which a turn is not over, and an environment has answered; and the next step."""
    environment = Noting(EchoConfig(until=13))
    pool, prompts = pool_of(policy, environment, **FINE), stream_of(policy)
    for step in range(1, 40):
        take(pool, prompts, step)
        live = [episode for group in pool.pool for episode in group.live.values()]
        answered = [e for e in live if e.counts[TURNS]]
        if len(answered) > 1 and any(len(e.turn.response_ids) for e in live):
            return pool, prompts, step + 1
    raise AssertionError


def again(
    policy: Policy, state: Any, prompts: PromptStream, environment: Echo
) -> tuple[PartialTurns, PromptStream]:
    pool, stream = pool_of(policy, environment, **FINE), stream_of(policy)
    stream.load_state_dict(prompts.state_dict())
    pool.load_state_dict(state, stream)
    return pool, stream


def test_a_resumed_pool_gives_the_same_next_steps(tmp_path: Path) -> None:
    """Turns are said again to a new environment, which is then where the old one was."""
    policy = chat_policy()
    pool, prompts, step = begun(policy)
    environment = Noting(EchoConfig(until=13))
    resumed, stream = again(policy, saved(pool, tmp_path), prompts, environment)
    assert resumed.state_dict()["pool"][0]["live"] == pool.state_dict()["pool"][0]["live"]
    for later in range(step, step + 3):
        assert alike(take(pool, prompts, later), take(resumed, stream, later))
        assert pool.metrics() == resumed.metrics()
    old = pool.engine.environment
    assert isinstance(old, Echo)
    for group in pool.pool:
        for episode in group.live.values():
            assert environment.turns[episode.id] == old.turns[episode.id]


class Other(Noting):
    """Answers differently from before."""

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        changed = [{"role": "user", "content": "99"}]
        found = super().step(episodes, turns)
        return [o if o.done else replace(o, messages=changed) for o in found]


def test_an_environment_that_answers_otherwise_is_restarted_and_counted(tmp_path: Path) -> None:
    policy = chat_policy()
    pool, prompts, step = begun(policy)
    answered = {
        episode.id
        for group in pool.pool
        for episode in group.live.values()
        if episode.counts[TURNS]
    }
    resumed, stream = again(policy, saved(pool, tmp_path), prompts, Other(EchoConfig(until=13)))
    resumed.begin(drawing(stream, step, 2, 3))
    for group in resumed.pool:
        for episode in group.live.values():
            assert episode.counts[RESTARTED] == int(episode.id in answered)
            assert not episode.length or episode.id not in answered
        for place, episode in group.live.items():
            kept = group.own[place].response_ids.tolist()
            assert kept == ([] if episode.id in answered else episode.whole.response_ids.tolist())
    groups = [group for later in range(step, step + 6) for group in take(resumed, stream, later)]
    counts = [g.played.counts[RESTARTED] for g in responses(groups) if g.played]
    assert 1 <= sum(counts) <= len(answered) and max(counts) == 1
    shown = [m["content"] for g in responses(groups) if g.played for m in g.played.messages]
    assert "99" in shown


def test_a_call_that_must_not_be_made_twice_restarts_its_episode(tmp_path: Path) -> None:
    """The turns of that episode are not said again; those of the others are."""
    policy = chat_policy()
    pool, prompts, step = begun(policy)
    rows = [(group, e) for group in pool.pool for e in group.live.values() if e.counts[TURNS]]
    noted = rows[0][1].id
    environment = Noting(EchoConfig(until=13))
    environment.context = EpisodeContext(noted={noted})
    resumed, stream = again(policy, saved(pool, tmp_path), prompts, environment)
    environment.context = replace(environment.context, noted={noted})
    resumed.begin(drawing(stream, step, 2, 3))
    assert environment.turns[noted] == []
    found = {e.id: e for group in resumed.pool for e in group.live.values()}
    assert found[noted].counts[RESTARTED] == 1 and not found[noted].whole.response_ids.tolist()
    for _, episode in rows[1:]:
        assert len(environment.turns[episode.id]) == episode.counts[TURNS]
        assert found[episode.id].counts[RESTARTED] == 0
        assert torch.equal(found[episode.id].whole.response_ids, episode.whole.response_ids)
    tree = saved(resumed, tmp_path)
    third, _ = again(policy, tree, stream, Noting(EchoConfig(until=13)))
    kept = {e.id: e for group in third.pool for e in group.live.values()}
    assert kept[noted].counts[RESTARTED] == 1
    assert noted not in third.before, "its tokens of before the kill are gone"


def test_greedy_episodes_start_as_their_group_did() -> None:
    policy = chat_policy()
    pool, prompts = pool_of(policy, greedy=True), stream_of(policy)
    for step in (1, 2):
        for group in take(pool, prompts, step):
            assert group.greedy is not None and group.greedy.played is not None
            assert {str(g.played.asked) for g in group.own if g.played} == {
                str(group.greedy.played.asked)
            }
            assert int(group.greedy.policy_version.min()) == step
    assert all(isinstance(group, Playing) for group in pool.taken)


# ---- whole runs


class Dying(Echo):
    """Raises at the first turn after a checkpoint is there, once."""

    after: ClassVar[Path | None] = None

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        if episodes and Dying.after is not None and Dying.after.exists():
            Dying.after = None
            raise KeyboardInterrupt
        return super().step(episodes, turns)


@pytest.mark.slow
def test_a_run_killed_between_turns_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    asked = ("rollout.oversample=1", "rollout.round_tokens=5", "environment.until=11")

    def run(folder: str, **keywords: Any) -> Any:
        name = f"{__name__}:Dying"
        return trained(tmp_path / folder, *asked, environment=name, **keywords)

    whole = run("whole")
    rows = [m for m in whole.metrics if "off_policy/continued_fraction" in m]
    assert any(0 < row["off_policy/continued_fraction"] < 1 for row in rows)
    assert any(row["off_policy/staleness_max"] > 0 for row in rows)
    Dying.after = tmp_path / "killed" / "checkpoint-2"
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    done = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert len(done) == 3, "the evaluation and two steps"
    resumed = run("killed", resume="auto")
    assert equal(whole, resumed) and steady(whole) == steady(resumed)
