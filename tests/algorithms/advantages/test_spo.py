"""SPO's running value of each prompt: what it learns, forgets, saves, and asks the policy for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from algorithms.advantages.spo import SPO, SpoConfig, kept
from rlkit.batch import AdvantageBatch, Group, Prompt, Sample, Score
from rlkit.interfaces import PROMPT_IDS, asked_ids
from rlkit.registry import build
from rlkit.testing.base import stored
from tests.algorithms.advantages.hand import batch_of, one_a_row


def asked(name: str, number: int, rewards: Sequence[float] = (0.0,)) -> Group:
    """A prompt with responses of two tokens and these rewards."""
    samples = [
        Sample(
            sample_id=number + i,
            prompt_id=name,
            response_ids=torch.tensor([5, 6]),
            loss_mask=torch.ones(2, dtype=torch.bool),
            behavior_logp=torch.zeros(2),
            policy_version=torch.ones(2, dtype=torch.int32),
            reward=reward,
            rewards={},
            finish_reason="stop",
            step=1,
        )
        for i, reward in enumerate(rewards)
    ]
    ids = torch.tensor([3, 4])
    return Group(
        prompt=Prompt(prompt_id=name, text_or_messages=name, ids=ids, columns={}), samples=samples
    )


class Moved:
    """A policy that has moved by so many nats per token since every visit."""

    def __init__(self, by: float = 0.0) -> None:
        self.by = by
        self.scored: list[int] = []

    def __call__(self, samples: Sequence[Sample], prompts: Sequence[Prompt]) -> Mapping[int, Score]:
        assert [s.prompt_id for s in samples] == [p.prompt_id for p in prompts]
        assert all(s.response_ids.dtype == torch.int64 for s in samples)
        self.scored += [s.sample_id for s in samples]
        signs = torch.tensor([1.0, -1.0])
        return {
            s.sample_id: Score(logp=s.behavior_logp + self.by * signs, entropy=0.0, advantage=0.0)
            for s in samples
        }


def visit(
    part: SPO, names: list[str], rewards: list[float], number: int = 0, by: float = 0.0
) -> tuple[list[float], Moved]:
    """The differences to the values, before normalization up to a shift and a scale."""
    groups = [asked(name, number + i, rewards[i : i + 1]) for i, name in enumerate(names)]
    policy = Moved(by)
    part.begin(groups, policy)
    return one_a_row(part(batch_of(rewards, list(range(len(names)))))), policy


def test_spo_by_hand() -> None:
    """First visits: alpha = beta = 1/2, so d = R - 1/2; at rho 0.96 they become 0.48 + R, 1.48 - R.

    At the second visit p = 1.48 / 1.96 and 0.48 / 1.96, and d = -p for two wrong answers.
    """
    part = SPO()
    first, _ = visit(part, ["a", "b"], [1.0, 0.0])
    assert first == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert part.counts == {"a": pytest.approx((1.48, 0.48)), "b": pytest.approx((0.48, 1.48))}
    second, policy = visit(part, ["b", "a"], [0.0, 0.0], number=2)
    assert second == pytest.approx([0.5**0.5, -(0.5**0.5)]), "the prompt that was solved loses more"
    assert policy.scored == [1, 0], "the last response of each prompt"
    assert part.counts["a"] == pytest.approx((0.96 * 1.48, 0.96 * 0.48 + 1))


def test_the_advantage_is_normalized_over_the_batch() -> None:
    """d = 1/2, 1/2, -1/2: mean 1/6, squares 1/9 + 1/9 + 4/9 over 2 = 1/3."""
    found, _ = visit(SPO(), ["a", "b", "c"], [1.0, 1.0, 0.0])
    third = (1 / 3) ** 0.5
    assert found == pytest.approx([third, third, -2 * third])


@pytest.mark.parametrize(
    ("moved", "rho"), [(0.0, 0.96), (0.006, 2**-0.1), (0.06, 0.875), (9.0, 0.875)]
)
def test_what_is_known_is_forgotten_as_far_as_the_policy_has_moved(
    moved: float, rho: float
) -> None:
    """2^(-0.1) = 0.933 is between the bounds; a half is below them."""
    assert kept(moved, SpoConfig()) == pytest.approx(rho)
    part = SPO()
    visit(part, ["a"], [1.0])
    visit(part, ["a"], [1.0], number=1, by=moved)
    assert part.counts["a"] == pytest.approx((rho * 1.48 + 1, rho * 0.48), rel=1e-5)


def test_the_logged_drift_is_the_mean_over_prompts_that_were_asked_before() -> None:
    part = SPO()
    visit(part, ["a", "b"], [1.0, 0.0])
    part.begin([asked(name, 5) for name in "abc"], Moved(0.25))
    found = part(batch_of([1.0, 0.0, 1.0], [0, 1, 2])).metrics
    assert found["advantage/drift"] == pytest.approx(0.25)


def test_the_log_probs_of_the_visit_are_the_policys_of_that_step() -> None:
    part, batch = SPO(), batch_of([1.0], [0])
    part.begin([asked("a", 7)], Moved())
    part(batch)
    torch.testing.assert_close(
        part.last["a"].behavior_logp.double(), batch.prox_logp[0], atol=1e-6, rtol=0
    )
    assert part.last["a"].sample_id == 7


def counted(batch: AdvantageBatch, groups: list[Group]) -> dict[str, tuple[float, float]]:
    part = SPO()
    part.begin(groups, Moved())
    part(batch)
    return part.counts


def test_all_new_responses_of_a_prompt_count_and_no_others() -> None:
    batch = batch_of([1.0, 0.0, 1.0, 1.0], [0, 0, 0, 1])
    groups = [asked("a", 0, [1.0, 0.0, 1.0]), asked("b", 9, [1.0])]
    assert counted(batch, groups)["a"] == pytest.approx((0.48 + 2, 0.48 + 1))
    old = replace(batch, replayed=torch.tensor([False, False, True, True]))
    assert counted(old, groups) == {"a": pytest.approx((0.48 + 1, 0.48 + 1))}
    shown = replace(batch, expert=torch.tensor([False, False, True, True]))
    assert counted(shown, groups) == {"a": pytest.approx((0.48 + 1, 0.48 + 1))}


def test_groups_of_one_prompt_count_together_and_forget_once() -> None:
    """As one group of all their responses; the last of them is remembered."""
    batch = batch_of([1.0, 0.0, 1.0], [0, 1, 1])
    part = SPO()
    for number in (0, 10):
        part.begin([asked("a", number, [1.0]), asked("a", number + 1, [0.0, 1.0])], Moved(0.006))
        part(batch)
        assert part.last["a"].sample_id == number + 2
        if number == 0:
            assert part.counts == {"a": pytest.approx((0.48 + 2, 0.48 + 1))}
    rho = 2**-0.1
    assert part.counts == {"a": pytest.approx((rho * 2.48 + 2, rho * 1.48 + 1), rel=1e-5)}


def test_only_prompts_that_are_counted_cost_a_forward() -> None:
    part, policy = SPO(), Moved()
    visit(part, ["a", "b"], [1.0, 0.0])
    part.begin([asked("a", 5), asked("b", 6), asked("c", 7)], policy)
    part(replace(batch_of([0.0] * 3, [0, 1, 2]), replayed=torch.tensor([False, True, False])))
    assert policy.scored == [0], "b is replayed, c is new"


def test_a_kl_penalty_in_the_reward_is_no_failure() -> None:
    """The batch's reward is less the penalty, the response was right all the same."""
    batch = batch_of([0.3, -0.2], [0, 1])
    found = counted(batch, [asked("a", 0, [1.0]), asked("b", 1, [0.0])])
    assert found == {"a": pytest.approx((1.48, 0.48)), "b": pytest.approx((0.48, 1.48))}


def test_the_prompt_not_visited_for_longest_is_forgotten_also_after_a_checkpoint() -> None:
    part, again = SPO(SpoConfig(capacity=2)), SPO(SpoConfig(capacity=2))
    visit(part, ["a", "b"], [1.0, 1.0])
    visit(part, ["a"], [1.0], number=2)
    again.load_state_dict(stored(part.state_dict()))
    for each in (part, again):
        visit(each, ["c"], [0.0], number=3)
        assert set(each.counts) == set(each.last) == {"a", "c"}


def test_ids_are_kept_small_and_the_prompts_own_not_at_all() -> None:
    part = SPO()
    visit(part, ["a"], [1.0])
    kept_one = part.state_dict()["a"]
    assert kept_one["response"].dtype == torch.int32 and "asked" not in kept_one
    group = asked("b", 1)
    group.samples[0].extras[PROMPT_IDS] = torch.tensor([3, 4, 9])
    counted_part = SPO()
    counted_part.begin([group], Moved())
    counted_part(batch_of([1.0], [0]))
    again = SPO()
    again.load_state_dict(stored(counted_part.state_dict()))
    assert asked_ids(group.prompt, again.last["b"]).tolist() == [3, 4, 9]


def test_rewards_outside_the_unit_interval_count_as_its_ends() -> None:
    batch = batch_of([3.0, -2.0], [0, 1])
    found = counted(batch, [asked("a", 0, [3.0]), asked("b", 1, [-2.0])])
    assert found == {"a": pytest.approx((1.48, 0.48)), "b": pytest.approx((0.48, 1.48))}


def test_without_a_run_every_prompt_is_new_and_nothing_is_counted() -> None:
    part = build("advantage", "spo")
    found = one_a_row(part(batch_of([1.0, 0.0], [0, 1])))
    assert found == pytest.approx([0.5**0.5, -(0.5**0.5)]) and part.counts == {}


def test_a_batch_without_a_valid_token_counts_nothing() -> None:
    silent = asked("a", 0)
    silent.samples[0] = replace(silent.samples[0], loss_mask=torch.zeros(2, dtype=torch.bool))
    assert counted(replace(batch_of([1.0], [0]), mask=torch.zeros(1, 2).bool()), [silent]) == {}


def test_what_is_known_survives_a_checkpoint() -> None:
    part, again = SPO(), SPO()
    visit(part, ["a", "b"], [1.0, 0.0])
    again.load_state_dict(stored(part.state_dict()))
    ends = [
        visit(each, ["a", "c", "b"], [0.0, 1.0, 1.0], number=4, by=0.01) for each in (part, again)
    ]
    assert ends[0][0] == ends[1][0] and ends[0][1].scored == ends[1][1].scored == [0, 1]
    assert part.counts == again.counts
