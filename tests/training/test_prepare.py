"""The batch of a step: log-probs where parts read them, and advantages."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import rlkit
from rlkit.batch import Group, Request, Sample
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator, Tokens
from rlkit.models.critic import Critic
from rlkit.models.policy import Policy
from rlkit.tasks.prompts import Prompts
from rlkit.testing.advantages import examples
from rlkit.training.metrics import staleness
from rlkit.training.prepare import TrainBatch, estimated, prepare
from tests.steps import ROWS, collected, move, parts, prepared, rollout, scorer, shown, updater_of
from tests.tiny import make_policy, make_prompts


def test_prox_is_the_policy_now_where_a_group_is_old_and_behavior_where_it_is_fresh() -> None:
    policy = make_policy()
    old = rollout(policy, step=1)
    move(policy)
    fresh = rollout(policy, step=3)
    batch = prepared(policy, fresh + old, 3, parts()).loss
    assert batch.age.tolist() == [0] * 16 + [2] * 16
    assert torch.equal(batch.prox_logp[:16], batch.behavior_logp[:16])
    everything = prepare(fresh + old, 3, parts(), scorer(policy, "rounded", budget=10_000)).loss
    torch.testing.assert_close(batch.prox_logp, everything.prox_logp, atol=3e-5, rtol=0)
    assert (batch.prox_logp[16:] - batch.behavior_logp[16:]).abs().max() > 0.01
    stored = torch.cat([s.behavior_logp for g in old for s in g.samples])
    assert torch.equal(batch.behavior_logp[16:][batch.mask[16:]], stored), "never recomputed"


def test_only_the_forwards_a_part_reads_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    groups = rollout(policy, step=1)
    calls: list[int] = []
    real = policy.logp

    def counted(tokens: Tokens) -> torch.Tensor:
        calls.append(len(tokens.lengths))
        return real(tokens)

    monkeypatch.setattr(policy, "logp", counted)
    prepared(policy, groups, 3, parts(loss="topr"))
    assert not calls, "TOPR reads the behavior policy alone"
    prepared(policy, groups, 1, parts(loss="remix"))
    assert not calls, "fresh samples bring their own log-probs"
    prepared(policy, groups, 3, parts(loss="remix"))
    assert calls
    calls.clear()
    prepare(groups, 1, parts(loss="topr"), scorer(policy, "rounded"))
    assert not calls, "an engine in half precision is not measured where nothing reads prox"
    prepare(groups, 1, parts(loss="topr"), scorer(policy, "foreign"))
    assert not calls, "the first update shows how far another engine is"


def test_demonstrations_are_refused_by_a_loss_that_cannot_use_them() -> None:
    policy = make_policy()
    groups = rollout(policy, step=1)
    expert = [replace(s, source="expert") for s in groups[0].samples]
    with pytest.raises(UserError, match="expert demonstrations"):
        prepared(policy, [replace(groups[0], samples=expert)], 1, parts())


def test_an_advantage_finds_what_a_response_keeps() -> None:
    """Values per token padded with 0, a number of the whole response as one number."""
    policy = make_policy()
    groups = rollout(policy, step=1)
    first = groups[0].samples[0]
    first.extras.update({"turn": torch.ones(len(first.response_ids)), "turns": 1.0})
    seen = {}

    class Spy(AdvantageEstimator):
        def __call__(self, b):
            seen.update(b.extras)
            return rlkit.build("advantage", "group_norm")(b)

    chosen = replace(parts(), advantage=Spy())
    prepared(policy, groups, 1, chosen)
    assert seen["turns"].tolist() == [1.0] + [0.0] * 15
    assert seen["turn"][0].sum() == len(first.response_ids) and not seen["turn"][1:].any()


def test_reward_stands_on_the_last_token_and_kl_in_the_reward_is_k1() -> None:
    policy = make_policy()
    anchor = rlkit.build("anchor", "base", placement="reward", beta=0.5)
    anchor.rebase(policy)
    move(policy)
    groups = rollout(policy, step=2)
    seen = {}

    class Spy(AdvantageEstimator):
        def __call__(self, b):
            seen["b"] = b
            return rlkit.build("advantage", "reward")(b)

    chosen = replace(parts(anchor="base"), anchor=anchor, advantage=Spy())
    batch = prepared(policy, groups, 2, chosen).loss
    b = seen["b"]
    kl = torch.where(batch.mask, batch.prox_logp - batch.anchor_logp["base"], 0.0)
    assert kl.abs().max() > 0.01
    torch.testing.assert_close(b.reward, batch.reward - 0.5 * kl.sum(-1))
    last = batch.mask.sum(-1) - 1
    expected = -0.5 * kl
    expected[torch.arange(len(last)), last] += batch.reward
    torch.testing.assert_close(b.token_reward, expected)


def test_the_mismatch_of_an_engine_is_measured_on_this_steps_responses() -> None:
    """log-probs that are 0.1 too high everywhere: k3 = e^-0.1 - 1 + 0.1; nothing for exact ones."""
    policy = make_policy()
    old, fresh = rollout(policy, step=1), rollout(policy, step=3)
    for sample in (s for g in fresh for s in g.samples):
        sample.behavior_logp.add_(0.1)
    for loss in ("remix", "topr"):
        updater = updater_of(policy, parts(loss))
        other = scorer(policy, "foreign", updater, 10_000, late=True)
        batch = prepare(fresh + old, 3, parts(loss), other)
        found = updater.run(batch, 1, 3).metrics
        assert found["off_policy/engine_difference_mean"] == pytest.approx(0.1, abs=1e-5)
        assert found["off_policy/engine_difference_max"] == pytest.approx(0.1, abs=1e-4)
        kl = math.exp(-0.1) - 1 + 0.1
        assert found["off_policy/engine_kl"] == pytest.approx(kl, abs=1e-4)
        for none in (prepared(policy, fresh, 3, parts(loss)), prepare(old, 3, parts(loss), other)):
            assert "off_policy/engine_kl" not in updater.run(none, 1, 3).metrics


ONE = torch.tensor([3, 1])
"""The text "1" and the end."""


def test_a_batch_marks_demonstrations_and_computes_their_log_probs() -> None:
    policy = make_policy()
    prompt = Prompts("train", ROWS, policy.tokenizer)[0]
    made = collected(policy, [Request(prompt=prompt, n=2, demonstrations=(shown(5, ONE),))], 3)
    chosen = parts("luffy")
    batch = prepare(made.groups, 3, chosen, scorer(policy)).loss
    assert batch.expert.tolist() == [False, False, True]
    assert batch.age.tolist() == [0, 0, 0]
    assert (batch.prox_logp[2, :2] < 0).all(), "the policy's own, not the zeros stored with it"
    assert torch.equal(batch.prox_logp[:2], batch.behavior_logp[:2])


def test_a_loss_that_cannot_use_them_says_so() -> None:
    policy = make_policy()
    prompt = Prompts("train", ROWS, policy.tokenizer)[0]
    made = collected(policy, [Request(prompt=prompt, n=2, demonstrations=(shown(5, ONE),))], 3)
    with pytest.raises(UserError, match="demonstrations"):
        prepare(made.groups, 3, parts("remix"), scorer(policy))


def test_stored_responses_are_scored_under_the_policy_as_it_is() -> None:
    policy = make_policy()
    (group,) = rollout(policy, step=1, n=4, prompts=1)
    before = scorer(policy).score(group.samples, [group.prompt] * 4)
    assert before.keys() == {s.sample_id for s in group.samples}
    for sample in group.samples:
        score = before[sample.sample_id]
        torch.testing.assert_close(score.logp, sample.behavior_logp, atol=3e-5, rtol=0)
        assert 0 < score.entropy <= math.log(policy.model.config.vocab_size)
        assert score.advantage == 0
    move(policy)
    (moved,) = scorer(policy).score(group.samples[:1], [group.prompt]).values()
    assert (moved.logp - group.samples[0].behavior_logp).abs().max() > 0.01


def test_only_a_critic_gives_values(policy: Policy) -> None:
    groups, chosen = rollout(policy, step=1, n=2, prompts=1), parts("ppo", advantage="gae")
    critic = Critic(policy.model)
    torch.nn.init.ones_(critic.head.bias)
    with_one = prepare(groups, 1, chosen, replace(scorer(policy), critic=critic))
    assert torch.equal(with_one.values, with_one.loss.mask.float()), "its bias on every token"
    assert not prepare(groups, 1, parts("ppo"), scorer(policy)).values.any()


def test_prox_is_the_policy_now_for_the_text_of_this_step_by_old_weights() -> None:
    """Age counts weights: sample 1 was generated in step 9 by pi_9, sample 2 in step 9 by pi_6."""
    policy = make_policy()
    batch = prepared_alone(policy, [sample(1, [9]), sample(2, [6])], 9)
    prox, now = batch.loss.prox_logp[:, 0], policy.logp(batch.tokens)[:, 0]
    assert prox[0] == -1.0 and now[1] != -1.0
    torch.testing.assert_close(prox[1], now[1])


@pytest.mark.parametrize("name", rlkit.names("advantage"))
def test_a_response_without_valid_tokens_is_in_no_statistic(name: str) -> None:
    """The others get what they get without it, in their group and over the batch."""
    b = examples(rlkit.build("advantage", name).needs)
    gone = torch.tensor([1, 2, 7])
    stay = torch.tensor([0, 3, 4, 5, 6])
    masked = replace(b, mask=b.mask.index_fill(0, gone, False))
    found = estimated(rlkit.build("advantage", name), masked)
    alone = rlkit.build("advantage", name)(b.rows(stay))
    for whole, part in ((found.advantage, alone.advantage), (found.returns, alone.returns)):
        assert torch.equal(whole[stay], part) and not whole[gone].any()
    assert found.metrics == alone.metrics


def test_a_batch_without_any_valid_token_has_no_advantages() -> None:
    b = examples()
    out = estimated(rlkit.build("advantage", "group_norm"), replace(b, mask=b.mask & False))
    assert out.advantage.shape == b.mask.shape and not out.advantage.any()


def test_fresh_text_of_old_weights_is_not_replayed_and_a_stored_one_of_any_age_is() -> None:
    """Sample 1 is fresh from pi_6, 2 is stored and, as it happens, of pi_9: age and replay cross.

    The policy's own log-probs are computed by age alone, whatever is replayed.
    """
    policy = make_policy()
    (prompt,) = make_prompts(policy, ["1+2="])
    fresh, stored = (Group(prompt=prompt, samples=[s]) for s in (sample(1, [6]), sample(2, [9])))
    loss = prepare([fresh, stored], 9, parts("ppo"), scorer(policy), [fresh]).loss
    assert loss.replayed.tolist() == [False, True] and loss.age.tolist() == [3, 0]
    assert (loss.prox_logp[:, 0] == loss.behavior_logp[:, 0]).tolist() == [False, True]
    assert not prepare([fresh, stored], 9, parts("ppo"), scorer(policy)).loss.replayed.any()


def test_the_advantage_sees_what_is_replayed() -> None:
    """SPEAR: new rewards 1 and 0 keep their group's mean, a stored 1 beats the median 1/2."""
    policy = make_policy()
    (prompt,) = make_prompts(policy, ["1+2="])
    fresh = Group(prompt=prompt, samples=[sample(1, [6]), sample(2, [6])])
    stored = Group(prompt=prompt, samples=[sample(3, [6]), sample(4, [6])])
    chosen = parts("spear", advantage="spear")
    batch = prepare([fresh, stored], 9, chosen, scorer(policy), [fresh])
    assert batch.loss.advantage[:, 0].tolist() == [0.5, -0.5, 0.5, 0.0]
    assert batch.metrics["advantage/baseline"] == 0.5


def sample(number: int, versions: list[int], source: str = "policy") -> Sample:
    n = len(versions)
    return Sample(
        sample_id=number,
        prompt_id="train-0",
        response_ids=torch.full((n,), 3),
        loss_mask=torch.ones(n, dtype=torch.bool),
        behavior_logp=torch.full((n,), -1.0),
        policy_version=torch.tensor(versions, dtype=torch.int32),
        reward=float(number % 2),
        rewards={},
        finish_reason="stop",
        source=source,
        step=9,
    )


def prepared_alone(policy: Policy, samples: list[Sample], step: int) -> TrainBatch:
    (prompt,) = make_prompts(policy, ["1+2="])
    groups = [Group(prompt=prompt, samples=samples)]
    return prepare(groups, step, parts("ppo"), scorer(policy))


def test_staleness_by_hand() -> None:
    """Ages of the tokens at step 9: 0, 0, 4, 2, 2 -> mean 1.6, maximum 4; a response is as old as
    its oldest token."""
    policy = make_policy()
    batch = prepared_alone(policy, [sample(1, [9, 9, 5]), sample(2, [7, 7])], 9)
    assert staleness(batch.samples, 9) == {
        "off_policy/staleness_mean": pytest.approx(1.6),
        "off_policy/staleness_max": 4.0,
    }
    assert batch.loss.age.tolist() == [4, 2]


def test_demonstrations_have_no_staleness() -> None:
    batch = prepared_alone(make_policy(), [sample(1, [8])], 9)
    shown = [sample(2, [3], "expert")]
    assert staleness(batch.samples, 9)["off_policy/staleness_max"] == 1.0
    assert staleness([*batch.samples, *shown], 9)["off_policy/staleness_max"] == 1.0
    assert staleness(shown, 9) == {}
