"""Drafts: the new responses are samples of the policy, each token is labeled, runs repeat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Request
from rlkit.config.sampling import Sampling
from rlkit.distributed.processes import Processes
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.draft_rules import accepted_prefix
from rlkit.rollout.hf import HFConfig, HFRollout, numbered_draws
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.spec_rl import SpecRL
from rlkit.rollout.visits import Stored
from tests.end_to_end.test_kills import assert_a_killed_run_ends_alike
from tests.tiny import CHARACTERS, make_policy, make_prompts

TEXTS = ["1+2=", "12+345=", "7="]
VOCABULARY = len(CHARACTERS) + 2
FIRST, SECOND = ("rollout", 1, 0), ("rollout", 2, 0)
STORED: dict[str, Any] = {"draft_uniforms": "stored"}
LENIENT: dict[str, Any] = {"draft_rule": "lenient"}


def made(policy: Policy, **fields: Any) -> SpecRL:
    config = HFConfig.model_validate({"max_completion_length": 12, "draft": "spec_rl", **fields})
    engine = SpecRL(HFRollout(config))
    engine.start(policy, seed=3)
    return engine


def plain(policy: Policy, **fields: Any) -> HFRollout:
    engine = HFRollout(HFConfig.model_validate({"max_completion_length": 12, **fields}))
    engine.start(policy, seed=3)
    return engine


def requests(policy: Policy, n: int = 4) -> list[Request]:
    return [Request(prompt=p, n=n) for p in make_prompts(policy, TEXTS)]


def shift(policy: Policy, by: float) -> None:
    """Move the weights."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=draws))


def flat(answers: Sequence[Sequence[Generation]]) -> list[Generation]:
    return [g for group in answers for g in group]


def two_visits(
    by: float = 0.01, n: int = 4, temperature: float = 1.0, **fields: Any
) -> tuple[SpecRL, list[Generation], list[Generation], Policy]:
    """Two visits of all prompts, the weights moved between them; the engine and both answers."""
    policy = make_policy(temperature=temperature)
    engine = made(policy, temperature=temperature, **fields)
    before = flat(engine.generate(GenerationCall(requests(policy, n), FIRST)))
    shift(policy, by)
    engine.sync(2)
    engine.metrics()
    return (
        engine,
        before,
        flat(engine.generate(GenerationCall(requests(policy, n), SECOND))),
        policy,
    )


def same_prefix(a: Tensor, b: Tensor) -> int:
    count = min(len(a), len(b))
    return int((a[:count] == b[:count]).long().cumprod(0).sum())


def forward(policy: Policy, answers: Sequence[Generation], n: int = 4) -> list[Tensor]:
    prompts = [r.prompt.ids for r in requests(policy, n) for _ in range(r.n)]
    logp = policy.logp(Tokens.of(prompts, [g.response_ids for g in answers]))
    return [row[: len(g.logp)] for row, g in zip(logp, answers, strict=True)]


# ---- on-policy: a chi-square test over all responses of two tokens


def probabilities(policy: Policy, prompt: Tensor) -> Tensor:
    """Of each response of at most two tokens, [V * V]; one that ends at once counts as (end, 0)."""
    with torch.no_grad():
        first = policy.model(input_ids=prompt[None]).logits[0, -1].double().softmax(-1)
        ids = torch.cat([prompt.expand(VOCABULARY, -1), torch.arange(VOCABULARY)[:, None]], 1)
        second = policy.model(input_ids=ids).logits[:, -1].double().softmax(-1)
    second[1] = 0.0
    second[1, 0] = 1.0
    return (first[:, None] * second).flatten()


def cells(answers: Sequence[Generation]) -> Tensor:
    """How often each of them was generated."""
    places = [[*g.response_ids.tolist(), 0][:2] for g in answers]
    return torch.bincount(torch.tensor([a * VOCABULARY + b for a, b in places]), minlength=256)


def deviation(counts: Tensor, expected: Tensor) -> float:
    """Pearson's statistic in standard deviations above its mean; rare cells count as one."""
    rare = expected * counts.sum() < 5
    seen = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]]) * counts.sum()
    freedom = len(seen) - 1
    return float(((seen - wanted) ** 2 / wanted).sum() - freedom) / math.sqrt(2 * freedom)


COUNT = 2048
WITHIN, BEYOND = 4.0, 10.0
"""Standard deviations: of a statistic that is right, and of one that is not."""


def second_visit(fixed: bool, **fields: Any) -> tuple[list[Generation], Tensor, float]:
    """Responses of the second visit, their true distribution, and the share of kept tokens.

    With `fixed`, every draft is the same response: what is drawn given the past.
    """
    policy = make_policy()
    engine = made(policy, max_completion_length=2, generation_batch_size=COUNT, **fields)
    asked = [Request(prompt=make_prompts(policy, ["7="])[0], n=COUNT)]
    engine.generate(GenerationCall(asked, FIRST))
    if fixed:
        name = asked[0].prompt.prompt_id
        drafts = engine.visits.take(name)
        often = int(cells([one.response for one in drafts]).argmax())
        first = next(one for one in drafts if int(cells([one.response])[often]))
        engine.visits.add(name, [first] * COUNT)
    shift(policy, 0.1)
    engine.sync(2)
    engine.metrics()
    found = flat(engine.generate(GenerationCall(asked, SECOND)))
    kept = engine.metrics()["rollouts/draft_kept_fraction"]
    return found, probabilities(policy, asked[0].prompt.ids), kept


@pytest.mark.parametrize(("fields", "least"), [({}, 0.02), (STORED, 0.2)])
def test_the_exact_rule_samples_the_new_policy(fields: dict[str, Any], least: float) -> None:
    """Over draws of drafts and numbers, for a policy that knows nothing of them."""
    found, expected, kept = second_visit(fixed=False, **fields)
    assert deviation(cells(found), expected) < WITHIN and kept > least


def test_with_new_numbers_it_does_so_whatever_the_draft_is() -> None:
    found, expected, kept = second_visit(fixed=True)
    assert deviation(cells(found), expected) < WITHIN and kept > 0.02


def test_with_stored_numbers_the_past_decides() -> None:
    """The same draft and numbers give the same beginning: no sample, given the past."""
    found, expected, _ = second_visit(fixed=True, **STORED)
    assert deviation(cells(found), expected) > BEYOND
    assert len({int(g.response_ids[0]) for g in found}) == 1


def test_the_lenient_rule_does_not_sample_the_new_policy() -> None:
    """Not even at s = 1 and b = 0."""
    found, expected, _ = second_visit(fixed=False, **LENIENT)
    assert deviation(cells(found), expected) > BEYOND


# ---- the labels of the tokens


@pytest.mark.parametrize("fields", [{}, STORED, {"top_k": 5, "temperature": 0.7}])
def test_every_token_of_the_exact_rule_is_the_current_policys(fields: dict[str, Any]) -> None:
    temperature = fields.get("temperature", 1.0)
    engine, before, after, policy = two_visits(**{**fields, "temperature": temperature})
    assert engine.metrics()["rollouts/draft_kept_fraction"] > 0
    for answer, logp in zip(after, forward(policy, after), strict=True):
        torch.testing.assert_close(answer.logp, logp, atol=1e-5, rtol=0)
        assert answer.policy_version.tolist() == [2] * len(answer.response_ids)
        assert (KEPT in answer.extras) == ("top_k" in fields)
        if KEPT in answer.extras:
            assert torch.as_tensor(answer.extras[KEPT]).shape == answer.logp.shape
    assert [g.response_ids.tolist() for g in after] != [g.response_ids.tolist() for g in before]


def test_a_kept_token_of_the_lenient_rule_stays_the_old_policys() -> None:
    engine, before, after, policy = two_visits(draft_bias=-0.5, **LENIENT)
    found = engine.metrics()
    kept = 0
    for old, new, logp in zip(before, after, forward(policy, after), strict=True):
        count = int((new.policy_version == 1).sum())
        kept += count
        assert new.policy_version.tolist() == [1] * count + [2] * (len(new.logp) - count)
        assert torch.equal(new.response_ids[:count], old.response_ids[:count])
        assert torch.equal(new.logp[:count], old.logp[:count])
        torch.testing.assert_close(new.logp[count:], logp[count:], atol=1e-5, rtol=0)
    tokens = sum(len(g.response_ids) for g in after)
    assert found["rollouts/draft_kept_fraction"] == kept / tokens > 0.3


def test_the_lenient_rule_keeps_what_the_policy_thinks_as_probable_as_before() -> None:
    engine, before, after, _ = two_visits(by=0.0, **LENIENT)
    assert engine.metrics()["rollouts/draft_kept_fraction"] > 0.99
    assert [g.response_ids.tolist() for g in after] == [g.response_ids.tolist() for g in before]


def test_the_lenient_rule_reads_the_log_probs_of_the_drafts_tokens() -> None:
    policy = make_policy()
    engine = made(policy, **LENIENT)
    asked = requests(policy)
    before = flat(engine.generate(GenerationCall(asked, FIRST)))
    shift(policy, 0.02)
    engine.sync(2)
    after = flat(engine.generate(GenerationCall(asked, SECOND)))
    for number, (old, new, logp) in enumerate(
        zip(before, after, forward(policy, before), strict=True)
    ):
        drawn = numbered_draws(3, ("rollout/draft", 2, 0), number, len(old.logp))
        kept = accepted_prefix(logp, old.logp, torch.from_numpy(drawn))
        assert int((new.policy_version == 1).sum()) == kept


def test_with_its_own_numbers_and_the_same_policy_a_response_is_its_draft() -> None:
    engine, before, after, _ = two_visits(by=0.0, **STORED)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.response_ids, new.response_ids)
        assert old.finish_reason == new.finish_reason
        torch.testing.assert_close(old.logp, new.logp, atol=1e-5, rtol=0)
    found = engine.metrics()
    assert (
        found["rollouts/draft_kept_fraction"] == 1 and not found["rollouts/draft_generated_tokens"]
    )
    assert found["rollouts/draft_steps_saved"] == max(len(g.response_ids) for g in after)


def test_with_its_own_numbers_a_response_begins_as_the_engine_would_draw_it() -> None:
    """Up to and with the token that replaces the draft's; three visits, so that pieces add up."""
    policy = make_policy()
    engine = made(policy, **STORED)
    asked = requests(policy)
    old = flat(engine.generate(GenerationCall(asked, FIRST)))
    for step in (2, 3):
        numbers = {
            row: one.uniform
            for row, one in enumerate(
                s for r in asked for s in engine.visits.of(r.prompt.prompt_id)
            )
        }
        shift(policy, 0.01)
        engine.sync(step)
        new = flat(engine.generate(GenerationCall(asked, ("rollout", step, 0))))
        whole = drawn_at(policy, asked, [numbers[row] for row in range(len(new))])
        for draft, answer, expected in zip(old, new, whole, strict=True):
            length = min(same_prefix(draft.response_ids, expected) + 1, len(expected))
            assert answer.response_ids[:length].tolist() == expected[:length].tolist()
        old = new


def drawn_at(policy: Policy, asked: Sequence[Request], uniforms: Sequence[Tensor]) -> list[Tensor]:
    """One token after the other at these numbers, without a cache; as many as there are."""
    out = []
    prompts = [r.prompt.ids for r in asked for _ in range(r.n)]
    for prompt, numbers in zip(prompts, uniforms, strict=True):
        ids = prompt
        for uniform in numbers:
            with torch.no_grad():
                share = policy.model(input_ids=ids[None]).logits[0, -1].double().softmax(-1)
            token = int((share.cumsum(-1) <= uniform).sum().clamp(max=VOCABULARY - 1))
            ids = torch.cat([ids, torch.tensor([token])])
            if token == 1:
                break
        out.append(ids[len(prompt) :])
    return out


# ---- where responses end


@pytest.mark.parametrize("fields", [{}, STORED, LENIENT, {"stop": ("#", "3+")}])
def test_responses_end_where_they_would(fields: dict[str, Any]) -> None:
    _, _, after, policy = two_visits(by=0.02, n=16, **fields)
    decode = policy.tokenizer.decode
    for answer in after:
        ids = answer.response_ids
        assert 1 not in ids[:-1].tolist() and 0 < len(ids) <= 12
        texts = [decode(ids[:-1]), decode(ids)]
        assert not any(stop in texts[0] for stop in fields.get("stop", ()))
        ended = int(ids[-1]) == 1 or any(stop in texts[1] for stop in fields.get("stop", ()))
        assert answer.finish_reason == ("stop" if ended else "length")
        assert ended or len(ids) == 12
    assert {g.finish_reason for g in after} == {"stop", "length"}


def test_a_draft_that_a_shorter_limit_cut_goes_on() -> None:
    policy = make_policy()
    short = made(policy, max_completion_length=3, **STORED)
    asked = requests(policy)
    cut = flat(short.generate(GenerationCall(asked, FIRST)))
    engine = made(policy, **STORED)
    engine.visits = short.visits
    found = flat(engine.generate(GenerationCall(asked, SECOND)))
    for old, new in zip(cut, found, strict=True):
        assert torch.equal(new.response_ids[: len(old.response_ids)], old.response_ids)
    assert max(len(g.response_ids) for g in found) > 3


# ---- what serves as a draft, once


def test_without_drafts_it_is_the_engine_itself_bit_for_bit() -> None:
    policy = make_policy()
    call = GenerationCall(requests(policy), FIRST)
    mine, theirs = (flat(e.generate(call)) for e in (made(policy), plain(policy)))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a.response_ids, b.response_ids) and torch.equal(a.logp, b.logp)


def test_a_prompt_asked_twice_at_once_has_its_drafts_once() -> None:
    """With the same numbers both would be the same responses."""
    policy = make_policy()
    engine = made(policy, **STORED)
    engine.generate(GenerationCall(requests(policy)[:1], FIRST))
    engine.metrics()
    asked = [requests(policy)[0], requests(policy)[0]]
    first, second = engine.generate(GenerationCall(asked, SECOND))
    assert engine.metrics()["rollouts/draft_found_fraction"] == 0.5
    ids = [[g.response_ids.tolist() for g in group] for group in (first, second)]
    assert ids[0] != ids[1]


def test_more_responses_than_drafts() -> None:
    policy = make_policy()
    engine = made(policy)
    engine.generate(GenerationCall(requests(policy, 2), FIRST))
    engine.metrics()
    found = engine.generate(GenerationCall(requests(policy, 3), SECOND))
    assert [len(group) for group in found] == [3, 3, 3]
    assert engine.metrics()["rollouts/draft_found_fraction"] == pytest.approx(2 / 3)
    assert len({tuple(g.response_ids.tolist()) for g in found[0]}) == 3


@pytest.mark.parametrize("stream", [("eval", 1, 0), ("eval-greedy", 1, 0)])
def test_evaluations_and_greedy_responses_are_the_engines_and_no_drafts(
    stream: tuple[str, int, int],
) -> None:
    policy = make_policy()
    engine = made(policy)
    engine.generate(GenerationCall(requests(policy), FIRST))
    kept = engine.visits.tokens
    engine.metrics()
    for call in (
        GenerationCall(requests(policy), stream),
        GenerationCall(requests(policy, 1), ("greedy", 1, 0), greedy=True),
        GenerationCall(requests(policy), FIRST, sampling=Sampling(temperature=0.5)),
        GenerationCall([replace(r, prefix=torch.tensor([4])) for r in requests(policy)], FIRST),
    ):
        mine, theirs = (flat(e.generate(call)) for e in (engine, plain(policy)))
        assert [g.response_ids.tolist() for g in mine] == [g.response_ids.tolist() for g in theirs]
    assert engine.visits.tokens == kept and engine.metrics() == {}


class Half(Processes):
    """One of two ranks that hold the same; the other's answers come from outside."""

    world_size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.said: list[Any] = []
        self.other: list[Any] = []

    def share(self, count: int) -> slice:
        middle = count // 2
        return slice(0, middle) if self.rank == 0 else slice(middle, count)

    def all_gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        other = self.other.pop(0) if self.other else value
        return [value, other] if self.rank == 0 else [other, value]


@pytest.mark.parametrize("fields", [{}, STORED])
def test_ranks_share_the_drafts_and_get_what_one_process_gets(fields: dict[str, Any]) -> None:
    _, _, alone, _ = two_visits(**fields)
    said: list[Any] = []
    for rank in (1, 0):  # the first only says what it found: the halves are as long
        policy = make_policy()
        engine = made(policy, **fields)
        engine.generate(GenerationCall(requests(policy), FIRST))
        shift(policy, 0.01)
        engine.sync(2)
        policy.processes = processes = Half(rank)
        processes.other = said
        together = flat(engine.generate(GenerationCall(requests(policy), SECOND)))
        said = processes.said
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.response_ids, b.response_ids)
        torch.testing.assert_close(a.logp, b.logp, atol=1e-5, rtol=0)


# ---- resuming


@pytest.mark.parametrize("fields", [{}, STORED, LENIENT])
def test_an_engine_that_takes_up_the_state_goes_on_bit_for_bit(fields: dict[str, Any]) -> None:
    policy = make_policy()
    engine = made(policy, **fields)
    engine.generate(GenerationCall(requests(policy), FIRST))
    shift(policy, 0.01)
    other = made(policy, **fields)
    other.load_state_dict(engine.state_dict())
    for each in (engine, other):
        each.sync(2)
    call = GenerationCall(requests(policy), SECOND)
    mine, theirs = (flat(e.generate(call)) for e in (engine, other))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a.response_ids, b.response_ids) and torch.equal(a.logp, b.logp)
        assert torch.equal(a.policy_version, b.policy_version)
    assert other.metrics()["rollouts/draft_found_fraction"] == 1


def test_drafts_without_their_numbers_are_none_for_a_rule_that_reads_them() -> None:
    """A run that is continued with draft_uniforms=stored has drafts of before."""
    policy = make_policy()
    engine, other = made(policy), made(policy, **STORED)
    engine.generate(GenerationCall(requests(policy), FIRST))
    other.load_state_dict(engine.state_dict())
    other.sync(2)
    other.generate(GenerationCall(requests(policy), SECOND))
    assert other.metrics()["rollouts/draft_found_fraction"] == 0


def test_memory_is_bounded() -> None:
    policy = make_policy()
    engine = made(policy, draft_tokens=40)
    engine.generate(GenerationCall(requests(policy, 2), FIRST))
    assert 0 < engine.visits.tokens <= 40
    assert all(isinstance(one, Stored) for one in engine.visits.of("train-2"))


RUN = (
    "algorithm=spec_rl",
    "buffer.cooldown=1",
    "buffer.low=0",
    "buffer.high=1",
    "rollout.draft_uniforms=stored",
)


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(tmp_path: Path) -> None:
    rows = assert_a_killed_run_ends_alike(tmp_path, *RUN)
    assert any(row.get("rollouts/draft_kept_fraction", 0) > 0 for row in rows)
