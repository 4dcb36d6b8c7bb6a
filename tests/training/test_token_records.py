"""What a loss saw of each token: copied from real updates, whatever their micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import PolicyTerms
from rlkit.distributed.processes import Processes
from rlkit.models.policy import Policy
from rlkit.models.rows import Layout
from rlkit.ops import masked_ratio
from rlkit.training.objective import Objective
from rlkit.training.prepare import TrainBatch, prepare
from rlkit.training.token_records import Seen, TokenRecorder, rows_of_groups
from rlkit.training.update import UpdateResult
from tests.ranks import on_ranks
from tests.steps import move, parts, rollout, scorer, updater_of
from tests.tiny import make_policy
from tests.training.objectives import Sequence, Surrogate, make_batch
from tests.training.test_objective import Whole

STEP = 3


def updated(
    loss: str = "remix",
    *,
    tokens_of: int = 4,
    passes: int = 1,
    layout: Layout = "padded",
    budget: int = 10_000,
    late: bool = False,
    **train: Any,
) -> tuple[TrainBatch, UpdateResult, Policy]:
    """Two fresh and two replayed groups, trained in minibatches of whole groups."""
    policy = make_policy()
    policy.layout = layout
    old = rollout(policy, step=1)
    move(policy)
    fresh = rollout(policy, step=STEP)[:2]
    updater = updater_of(
        policy,
        chosen := parts(loss),
        **{"learning_rate": 1e-2, "micro_batch_tokens": budget, **train},
    )
    score = scorer(policy, "own", updater, budget, late=late)
    batch = prepare(fresh + old[2:], STEP, chosen, score, fresh)
    return batch, updater.run(batch, passes, STEP, tokens_of), policy


def seen_by(loss: str, **how: Any) -> tuple[TrainBatch, Seen]:
    batch, result, _ = updated(loss, **how)
    assert result.seen is not None
    return batch, result.seen


def valid(seen: Seen, values: Tensor) -> Tensor:
    return values[seen.loss.mask]


@pytest.mark.parametrize(
    ("loss", "denominator"),
    [("remix", "behavior"), ("grpo", "prox"), ("bapo", "behavior"), ("opmd", "behavior")],
)
def test_the_ratio_is_the_loss_s_own_and_is_clipped_where_the_loss_says_so(
    loss: str, denominator: str
) -> None:
    """Without a ratio of its own, it is to the behavior policy. grpo clips at 0.2."""
    batch, seen = seen_by(loss)
    first = seen.passes[0]
    other = batch.loss.prox_logp if denominator == "prox" else batch.loss.behavior_logp
    expected = masked_ratio(first["logp"], other[seen.rows], seen.loss.mask)
    torch.testing.assert_close(seen.ratio(0), expected)
    replayed = seen.loss.mask & seen.loss.replayed[:, None]
    assert replayed.any() and not replayed.all()
    drift = (seen.ratio(0)[replayed] - 1).abs().max()
    assert drift < 1e-4 if denominator == "prox" else drift > 1e-2
    assert ("clipped" in first) == (loss != "opmd")
    if loss == "grpo":
        _, again = seen_by(loss, passes=2)
        ratio, advantage = again.ratio(1), again.loss.advantage
        outside = ((ratio > 1.2) & (advantage > 0)) | ((ratio < 0.8) & (advantage < 0))
        assert valid(again, outside).any()
        assert torch.equal(valid(again, again.passes[1]["clipped"] > 0), valid(again, outside))


@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_log_probs_are_those_the_buffer_observes(minibatches: int) -> None:
    batch, result, _ = updated("remix", minibatches=minibatches)
    seen = result.seen
    assert seen is not None and seen.rows.tolist() == list(range(16))
    for place, sample in enumerate(batch.samples):
        expected = result.scores[sample.sample_id].logp
        assert torch.equal(seen.passes[0]["logp"][place, : len(expected)], expected)


def test_the_last_pass_is_that_of_the_weights_before_the_last_step() -> None:
    """With one minibatch a pass, the third begins where two passes end."""
    batch, _, two = updated("remix", passes=2)
    with torch.no_grad():
        expected = two.logp(batch.tokens)
    _, seen = seen_by("remix", passes=3)
    first, last = seen.passes
    torch.testing.assert_close(valid(seen, last["logp"]), valid(seen, expected))
    assert (valid(seen, first["logp"]) - valid(seen, last["logp"])).abs().max() > 1e-2
    torch.testing.assert_close(
        seen.ratio(1),
        masked_ratio(last["logp"], seen.loss.behavior_logp, seen.loss.mask),
    )
    assert len(seen_by("remix", passes=1)[1].passes) == 1


@pytest.mark.parametrize("loss", ["remix", "grpo", "bapo", "gspo"])
@pytest.mark.parametrize(
    "how",
    [
        {"budget": 60},
        {"layout": "packed"},
        {"layout": "shared_prefix", "budget": 60},
        {"late": True},
        {"late": True, "budget": 60, "layout": "packed"},
    ],
)
def test_neither_layout_nor_micro_batches_change_the_records(
    loss: str, how: dict[str, Any]
) -> None:
    _, expected = seen_by(loss, passes=2, learning_rate=1e-3)
    _, found = seen_by(loss, passes=2, learning_rate=1e-3, **how)
    assert torch.equal(found.rows, expected.rows)
    for name in ("prox_logp", "behavior_logp", "advantage"):
        ours, theirs = getattr(found.loss, name), getattr(expected.loss, name)
        torch.testing.assert_close(valid(found, ours), valid(found, theirs), atol=1e-5, rtol=1e-4)
    for number in range(2):
        assert found.passes[number].keys() == expected.passes[number].keys()
        for name, value in found.passes[number].items():
            torch.testing.assert_close(
                valid(found, value),
                valid(found, expected.passes[number][name]),
                atol=1e-4,
                rtol=1e-3,
            )


def test_recording_changes_nothing_and_costs_no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    real = Policy.terms

    def counted(*given: Any, **named: Any) -> PolicyTerms:
        calls[0] += 1
        return real(*given, **named)

    monkeypatch.setattr(Policy, "terms", counted)
    found = []
    for tokens_of in (0, 2):
        calls[0] = 0
        _, result, policy = updated("grpo", passes=2, tokens_of=tokens_of, budget=60)
        weights = torch.cat([p.detach().flatten() for p in policy.model.parameters()])
        found.append((calls[0], result, weights))
    (without, off, left), (with_records, on, right) = found
    assert off.seen is None and on.seen is not None and len(on.seen.rows) == 8
    assert without == with_records > 0
    assert torch.equal(left, right) and off.metrics == on.metrics


def test_the_rows_are_those_of_groups_that_seed_and_step_decide() -> None:
    group = torch.arange(8).repeat_interleave(3)
    chosen = {step: rows_of_groups(group, 8, 2, seed=0, step=step) for step in range(40)}
    assert all(len(rows) == 6 and len(group[rows].unique()) == 2 for rows in chosen.values())
    assert torch.equal(rows_of_groups(group, 8, 2, seed=0, step=7), chosen[7])
    assert len({tuple(rows.tolist()) for rows in chosen.values()}) > 10
    assert len(torch.cat([group[rows] for rows in chosen.values()]).unique()) == 8
    assert len(rows_of_groups(group, 8, 0, seed=0, step=1)) == 0
    assert rows_of_groups(group, 8, 99, seed=0, step=1).tolist() == list(range(24))


class Gathering(Processes):
    """A rank that meets others only to gather what was recorded."""

    def __init__(self, shares: list[Any]) -> None:
        self.shares = shares

    def all_gather(self, value: Any) -> list[Any]:
        self.shares.append(value)
        return self.shares


@pytest.mark.parametrize("loss", [Surrogate, Whole, Sequence])
def test_ranks_put_together_what_each_saw(loss: type[Any]) -> None:
    """A loss of scope "minibatch" shows every rank all rows, any other only its own."""
    logp, batch = make_batch()
    kept = torch.tensor([0, 3, 6])

    def recorded(processes: Processes, splits: list[Tensor]) -> TokenRecorder:
        recorder = TokenRecorder(kept, batch, 1, torch.device("cpu"))
        objective = Objective(loss(), processes=processes, watch=recorder.note)
        theta = logp.clone().requires_grad_()

        def forward(rows: Tensor) -> PolicyTerms:
            return PolicyTerms(logp=theta[rows] * 1.0, entropy=theta[rows] ** 2)

        recorder.begin(0, torch.arange(7))
        objective.backward(forward, batch, splits)
        return recorder

    halves = [
        [torch.tensor([0, 1]), torch.tensor([5])],
        [torch.tensor([6, 2, 4]), torch.tensor([3])],
    ]
    both = on_ranks(lambda rank: recorded(rank, halves[rank.rank]))
    shares: list[Any] = []
    first = both[0].seen(batch, Gathering(shares))
    second = both[1].seen(batch, Gathering(shares))
    alone = recorded(Processes(), [torch.arange(7)]).seen(batch, Processes())
    assert first is not None and second is not None and alone is not None
    assert set(alone.passes[0]) == {"logp"} | ({"ratio"} if loss is Surrogate else set())
    for name, value in alone.passes[0].items():
        assert torch.equal(second.passes[0][name], value)
        assert loss is Whole or first.passes[0][name].isnan().any(), "it has not met the second"
    assert torch.equal(alone.passes[0]["logp"], logp[kept].float())


def test_a_repeated_attempt_replaces_what_the_first_one_saw() -> None:
    _, batch = make_batch()
    recorder = TokenRecorder(torch.tensor([1, 4]), batch, 1, torch.device("cpu"))
    recorder.begin(0, torch.tensor([4, 5, 1]))
    for offset in (10.0, 20.0):
        logp = torch.full((3, 5), offset) + torch.arange(3)[:, None]
        recorder.note(torch.tensor([2, 0, 1]), logp, {"policy/clip_fraction": logp[:, 0]})
    seen = recorder.seen(batch, Processes())
    assert seen is not None
    assert seen.passes[0]["logp"].tolist() == [[20.0] * 5, [21.0] * 5]
    assert seen.passes[0]["clipped"].tolist() == [[20.0] * 5, [21.0] * 5], "one for all its tokens"


def test_a_pass_that_was_not_reached_is_not_there() -> None:
    _, batch = make_batch()
    recorder = TokenRecorder(torch.tensor([1]), batch, 3, torch.device("cpu"))
    for number in (0, 1):
        recorder.begin(number, torch.arange(7))
        recorder.note(torch.arange(7), torch.full((7, 5), float(number)), {})
    seen = recorder.seen(batch, Processes())
    assert seen is not None and len(seen.passes) == 1
    assert seen.passes[0]["logp"].tolist() == [[0.0] * 5]


def test_what_late_rows_turn_out_to_be_is_their_prox_logp() -> None:
    batch, seen = seen_by("grpo", late=True)
    assert batch.own.late.any(), "left to the first update"
    late = batch.own.late[seen.rows]
    rows = seen.loss.mask & late[:, None]
    torch.testing.assert_close(seen.loss.prox_logp[rows], seen.passes[0]["logp"][rows])
    assert not torch.allclose(seen.loss.prox_logp[rows], seen.loss.behavior_logp[rows])
