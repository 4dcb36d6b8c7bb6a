"""Responses that go on in the next step: prefixes, the pool, whole runs."""

from __future__ import annotations

import copy
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.batch import Prompt, Request
from rlkit.composition.compose import compose
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.composition.session import RunScope, open_session, source_of
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import ALL, Generation, GenerationCall, RolloutConfig, RolloutEngine
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.partial import BLANK, Partial, extended, pool_size
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.source import Completed, OnDemand
from rlkit.rollout.vllm.engine import VLLMConfig, VLLMRollout
from rlkit.rollout.vllm.sampling import Asker, VLLMSamplingConfig
from rlkit.runs.checkpoint import load_tree, save_tree
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream
from rlkit.training.prepare import TrainBatch
from rlkit.training.trainer import Trainer
from tests.certain import HALF, UNEVEN
from tests.cli import SMALL, metrics, run, without_times
from tests.end_to_end.test_kills import COMMON, weights
from tests.rollout import models
from tests.steps import drawing, move, nothing_first, plan_of
from tests.tiny import make_policy, make_prompts

TEXTS = ["1+2=", "12+345=", "7=", "1+2+3+4="]
ROWS = [{"prompt": f"{i}+{i}=", "answer": "1"} for i in range(40)]
STREAM = ("t", 1, 0)


def engine_of(policy: Policy, **fields: object) -> HFRollout:
    made = HFRollout(HFConfig(**{"max_completion_length": 12, **fields}))
    made.start(policy, seed=3)
    return made


def ids(groups: Sequence[Sequence[Generation]]) -> list[list[list[int]]]:
    return [[g.response_ids.tolist() for g in group] for group in groups]


def forward(policy: Policy, prompt: Prompt, response: torch.Tensor) -> torch.Tensor:
    """Log-probs of a whole response, [T]."""
    return policy.logp(Tokens.of([prompt.ids], [response]))[0]


# ---- an engine goes on after a prefix


def test_a_continuation_is_the_rest_of_an_uninterrupted_response(policy: Policy) -> None:
    """Greedy, cut at another place in each row of a batch: tokens equal, log-probs to 1e-5."""
    engine, prompts = engine_of(policy), make_prompts(policy, TEXTS)
    whole = engine.generate(
        GenerationCall([Request(prompt=p, n=1) for p in prompts], STREAM, greedy=True)
    )
    cuts = [3, 0, 5, 1]
    assert all(len(g.response_ids) > cut for (g,), cut in zip(whole, cuts, strict=True))
    asked = [
        Request(prompt=p, n=1, prefix=g.response_ids[:cut])
        for p, (g,), cut in zip(prompts, whole, cuts, strict=True)
    ]
    for (rest,), (g,), cut in zip(
        engine.generate(GenerationCall(asked, STREAM, greedy=True)), whole, cuts, strict=True
    ):
        assert rest.response_ids.tolist() == g.response_ids[cut:].tolist()
        assert rest.finish_reason == g.finish_reason
        torch.testing.assert_close(rest.logp, g.logp[cut:], atol=1e-5, rtol=0)


def test_sampled_continuations_have_the_log_probs_of_one_forward(policy: Policy) -> None:
    engine, prompts = engine_of(policy, top_k=5), make_prompts(policy, TEXTS)
    prefixes = [torch.tensor(row) for row in ([5, 6, 7], [9], [4, 4, 4, 4], [11, 3])]
    asked = [Request(prompt=p, n=3, prefix=x) for p, x in zip(prompts, prefixes, strict=True)]
    for request, group in zip(asked, engine.generate(GenerationCall(asked, STREAM)), strict=True):
        assert len({tuple(g.response_ids.tolist()) for g in group}) > 1
        for g in group:
            start = len(request.prefix)
            logp = forward(policy, request.prompt, torch.cat([request.prefix, g.response_ids]))
            torch.testing.assert_close(logp[start:], g.logp, atol=1e-5, rtol=0)
            kept = g.extras[KEPT]
            assert isinstance(kept, torch.Tensor) and len(kept) == len(g.logp)


def test_a_request_gets_as_many_tokens_as_it_may_have(policy: Policy) -> None:
    """12 in all and at most max_tokens now; in a batch of mixed limits each row is as alone."""
    policy.model.generation_config.eos_token_id = None
    engine = engine_of(policy)
    engine.ends = torch.zeros(0, dtype=torch.int64)
    prompts, prefix = make_prompts(policy, TEXTS), torch.full((9,), 5)
    asked = [
        Request(prompt=prompts[0], n=1, max_tokens=2),
        Request(prompt=prompts[1], n=2, prefix=prefix),
        Request(prompt=prompts[2], n=1, prefix=prefix, max_tokens=8),
        Request(prompt=prompts[3], n=1),
    ]
    assert [engine.config.room(request) for request in asked] == [2, 3, 3, 12]
    rows: list[int] = []
    hook = policy.model.register_forward_pre_hook(
        lambda model, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    together = engine.generate(GenerationCall(asked, STREAM, greedy=True))
    hook.remove()
    assert rows == [4, 5, 4, *[1] * 9], "rows at their limit leave the batch"
    assert [len(g.response_ids) for g in chain(*together)] == [2, 3, 3, 3, 12]
    assert {g.finish_reason for g in chain(*together)} == {"length"}
    assert ids(together) == [
        *chain(
            *(
                ids(engine.generate(GenerationCall([request], STREAM, greedy=True)))
                for request in asked
            )
        )
    ]


def test_an_end_beyond_a_row_s_limit_is_not_its_own(policy: Policy) -> None:
    """Forty rows that may have one token stay in the batch for a while, with ninety others."""
    engine, (first, second) = engine_of(policy), make_prompts(policy, TEXTS[:2])
    whole = engine.generate(GenerationCall([Request(prompt=first, n=30)], STREAM))[0]
    stopping = next(g for g in whole if g.finish_reason == "stop" and len(g.logp) > 2)
    engine.ends = stopping.response_ids[-1:]
    prefix = stopping.response_ids[:-2]
    asked = [Request(prompt=first, n=40, prefix=prefix, max_tokens=1), Request(prompt=second, n=90)]
    for g in engine.generate(GenerationCall(asked, STREAM))[0]:
        assert len(g.response_ids) == 1
        assert (g.finish_reason == "stop") == (int(g.response_ids[0]) == int(engine.ends[0]))


def test_a_stop_text_is_seen_across_the_end_of_a_prefix(policy: Policy) -> None:
    """The stop text is two tokens of the greedy response; the prefix holds the first of them."""
    engine = engine_of(policy)
    (prompt,) = make_prompts(policy, TEXTS[:1])
    ((whole,),) = engine.generate(
        GenerationCall([Request(prompt=prompt, n=1)], STREAM, greedy=True)
    )
    text = str(policy.tokenizer.decode(whole.response_ids, skip_special_tokens=True))
    cut = next(i for i in range(1, len(text) - 1) if text.find(text[i : i + 2]) == i)
    stopping = engine_of(policy, stop=(text[cut : cut + 2],))
    asked = [Request(prompt=prompt, n=1, prefix=whole.response_ids[: cut + 1])]
    ((g,),) = stopping.generate(GenerationCall(asked, STREAM, greedy=True))
    assert len(g.response_ids) == 1 and g.finish_reason == "stop"


@pytest.mark.parametrize("cuts", [(0, 2, 4), (0, 1, 4), (0, 4, 4)])
def test_processes_that_share_prefixed_requests_give_what_one_gives(
    policy: Policy, cuts: Sequence[int]
) -> None:
    """A process may have no request at all, as in a last round with one unfinished response."""
    engine = engine_of(policy)
    asked = [
        Request(prompt=p, n=n, prefix=torch.full((n,), 4), max_tokens=3 + n)
        for n, p in enumerate(make_prompts(policy, TEXTS), start=1)
    ]
    shared = [
        engine.generate(GenerationCall(asked, STREAM, part=slice(a, b))) for a, b in pairwise(cuts)
    ]
    assert ids([*chain(*shared)]) == ids(engine.generate(GenerationCall(asked, STREAM, part=ALL)))


def test_vllm_is_asked_with_the_prefix_and_what_is_left() -> None:
    policy = make_policy()
    asker, config = Asker.of(policy, seed=3), VLLMSamplingConfig(max_completion_length=9)
    (prompt,) = make_prompts(policy, TEXTS[:1])
    prefix = torch.tensor([7, 8])
    asked = [
        Request(prompt=prompt, n=1),
        Request(prompt=prompt, n=1, prefix=prefix),
        Request(prompt=prompt, n=1, prefix=prefix, max_tokens=4),
    ]
    jobs = asker.jobs(GenerationCall(asked, STREAM), config)
    start = prompt.ids.tolist()
    assert [job.prompt_ids for job in jobs] == [start, [*start, 7, 8], [*start, 7, 8]]
    assert [job.parameters["max_tokens"] for job in jobs] == [9, 7, 4]
    again = asker.jobs(GenerationCall(asked[2:], ("t", 1, 1)), config)
    assert again[0].parameters["seed"] not in [job.parameters["seed"] for job in jobs]


# ---- the pool


@pytest.mark.parametrize(
    ("wanted", "oversample", "expected"),
    [(4, 0.25, 5), (4, 0.3, 6), (25, 0.12, 28), (3, 1.0, 6), (1, 0.01, 2), (0, 0.5, 0)],
)
def test_pool_size_by_hand(wanted: int, oversample: float, expected: int) -> None:
    """25 (1 + 0.12) is 28, although it is a little more in floating point."""
    assert pool_size(wanted, oversample) == expected


def piece(tokens: Sequence[int], version: int, reason: str, **extras: Any) -> Generation:
    return Generation(
        response_ids=torch.tensor(tokens, dtype=torch.int64),
        logp=torch.tensor(tokens, dtype=torch.float32) / -8,
        policy_version=torch.full((len(tokens),), version, dtype=torch.int32),
        finish_reason=reason,
        extras=extras,
    )


def test_pieces_join_token_by_token() -> None:
    first = extended(BLANK, piece([3, 4], 1, "length", x=torch.tensor([0.1, 0.2]), y=2.0), "open")
    whole = extended(first, piece([5], 2, "stop", x=torch.tensor([0.3]), y=2.0), "stop")
    assert whole.response_ids.tolist() == [3, 4, 5] and whole.response_ids.dtype == torch.int64
    assert whole.policy_version.tolist() == [1, 1, 2]
    assert whole.policy_version.dtype == torch.int32
    assert whole.logp.tolist() == [-0.375, -0.5, -0.625]
    assert torch.equal(torch.as_tensor(whole.extras["x"]), torch.tensor([0.1, 0.2, 0.3]))
    assert whole.extras["y"] == 2.0
    assert (first.finish_reason, whole.finish_reason) == ("open", "stop")


def test_a_number_a_response_that_differs_between_its_pieces_is_refused() -> None:
    first = extended(BLANK, piece([3], 1, "length", layer_seed=1.0), "open")
    with pytest.raises(UserError, match=r"one layer_seed per response.*rollout.draft=none$"):
        extended(first, piece([4], 2, "stop", layer_seed=2.0), "stop")


class ScriptedConfig(RolloutConfig):
    continues: ClassVar[bool] = True


LENGTHS: Mapping[str, Sequence[int]] = {
    "train-0": (10, 3),
    "train-1": (2, 3),
    "train-2": (4, 9),
    "train-3": (1, 1),
    "train-4": (99, 99),
    "train-5": (1, 1),
    "train-6": (6, 1),
}


class Scripted(RolloutEngine[ScriptedConfig]):
    """Responses of lengths known beforehand; token t of response i of a prompt is 100 i + t."""

    Config = ScriptedConfig
    lengths: Mapping[str, Sequence[int]]
    calls: list[tuple[object, list[tuple[str, int, int]]]]

    def start(self, policy: Policy, seed: int) -> None:
        raise AssertionError

    def sync(self, step: int) -> None:
        self.version = step

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        asked = [(r.prompt.prompt_id, r.n, len(r.prefix)) for r in call.requests]
        self.calls.append((call.stream, asked))
        return [[self.answer(r, i) for i in range(r.n)] for r in call.requests]

    def answer(self, request: Request, place: int) -> Generation:
        begun = request.prefix.tolist()
        place = begun[0] // 100 if begun else place
        length = self.lengths[request.prompt.prompt_id][place]
        end = min(length, len(begun) + self.config.room(request))
        new = [100 * place + t for t in range(len(begun), end)]
        return piece(new, self.version, "stop" if end == length else "length")


class Cut(Scripted):
    """An engine with a limit of its own: three tokens."""

    def answer(self, request: Request, place: int) -> Generation:
        return piece([1, 2, 3], self.version, "length")


def scripted(
    kind: type[Scripted] = Scripted, **fields: object
) -> tuple[Scripted, Partial, PromptStream]:
    settings = {"max_completion_length": 12, "num_generations": 2, "round_tokens": 4}
    engine = kind(ScriptedConfig(**{**settings, "oversample": 0.5, **fields}))
    engine.calls, engine.lengths = [], LENGTHS
    engine.sync(1)
    prompts = PromptStream(Prompts("train", ROWS, make_policy().tokenizer), 0, 2, 12)
    prompts.prompts.ids = [f"train-{place}" for place in range(len(ROWS))]  # short names
    (order,) = prompts.orders.values()
    order._epoch, order._order = 0, list(range(len(ROWS)))
    return engine, Partial(engine, greedy=False), prompts


def take(
    pool: Partial, prompts: PromptStream, step: int, wanted: int = 2, n: int = 2
) -> list[Completed]:
    """What step `step` trains on; it plans groups two by two."""
    plan = drawing(prompts, step, wanted, n)
    pool.begin(plan)
    return pool.completed(plan, None, 0)


def names(groups: Sequence[Completed]) -> list[str]:
    return [group.request.prompt.prompt_id.removeprefix("train-") for group in groups]


def figures_of(pool: Partial) -> tuple[float, float, float]:
    found = pool.metrics()
    assert all(name.startswith("off_policy/") for name in found)
    partial, waiting, continued = found.values()
    return partial, waiting, continued


def test_the_pool_by_hand() -> None:
    """Two groups per step, three in progress, rounds of 4 tokens, 12 at most.

    Step 1 needs three rounds; group 2 is complete with group 0, which is older. Step 2 needs one
    for group 3 and leaves 4 at four tokens. In step 3 they reach their limit of 12 in two rounds.
    """
    engine, pool, prompts = scripted()
    first = take(pool, prompts, 1)
    assert names(first) == ["0", "1"] and figures_of(pool) == (0, 1, 0)
    assert engine.calls == [
        (("rollout", 1, 0), [("train-0", 2, 0), ("train-1", 2, 0), ("train-2", 2, 0)]),
        (("rollout", 1, 1), [("train-0", 1, 4), ("train-2", 1, 4)]),
        (("rollout", 1, 2), [("train-0", 1, 8), ("train-2", 1, 8)]),
    ]
    assert ids([group.own for group in first])[0] == [[*range(10)], [100, 101, 102]]
    engine.sync(2)
    assert names(take(pool, prompts, 2)) == ["2", "3"]
    assert figures_of(pool) == pytest.approx((1, 0, 13 / 15))
    engine.sync(3)
    third = take(pool, prompts, 3)
    assert names(third) == ["4", "5"] and figures_of(pool) == pytest.approx((0, 1, 8 / 26))
    assert [stream for stream, _ in engine.calls[3:]] == [
        *(("rollout", 2, 0), ("rollout", 3, 0), ("rollout", 3, 1))
    ]
    for place, g in enumerate(third[0].own):
        assert g.policy_version.tolist() == [2] * 4 + [3] * 8
        assert g.response_ids.tolist() == [100 * place + t for t in range(12)]
        assert g.finish_reason == "length"


def test_groups_that_lack_a_reward_are_replaced_from_the_pool() -> None:
    """Group 2 is complete after step 1. In step 2, where it has to be replaced, 5 comes after one
    more round and 4 after another; the metrics are those of the step's four groups."""
    engine, pool, prompts = scripted()
    take(pool, prompts, 1)
    asked = len(engine.calls)
    plan = drawing(prompts, 1)
    assert names(copy.copy(pool).completed(plan, 1, 1)) == ["2"] and len(engine.calls) == asked
    engine.sync(2)
    assert names(take(pool, prompts, 2)) == ["2", "3"]
    plan = drawing(prompts, 2)
    assert names(pool.completed(plan, 1, 1)) == ["5"]
    assert figures_of(pool) == pytest.approx((1, 0, 13 / 17))
    assert names(pool.completed(plan, 1, 2)) == ["4"]
    assert figures_of(pool) == pytest.approx((1, 0, 13 / 41))
    assert [stream for stream, _ in engine.calls[asked:]] == [("rollout", 2, i) for i in range(3)]


def test_a_step_with_enough_complete_groups_asks_for_nothing() -> None:
    """Oversampling of 1: all four groups are complete after one round, enough for two steps."""
    engine, pool, prompts = scripted(oversample=1.0)
    engine.lengths = {f"train-{i}": (1, 1) for i in range(40)}
    assert names(take(pool, prompts, 1)) == ["0", "1"] and figures_of(pool) == (0, 2, 0)
    engine.sync(2)
    assert names(take(pool, prompts, 2)) == ["2", "3"] and figures_of(pool) == (0, 0, 1)
    assert [stream for stream, _ in engine.calls] == [("rollout", 1, 0)]
    assert prompts.position == 4
    engine.sync(3)
    assert names(take(pool, prompts, 3)) == ["4", "5"] and figures_of(pool)[2] == 0


@pytest.mark.parametrize("oversample", [0.5, 1.0])
def test_no_token_is_older_than_a_response_has_rounds(oversample: float) -> None:
    """Twelve tokens in rounds of four: three steps, over fifty steps of random lengths."""
    engine, pool, prompts = scripted(oversample=oversample)
    draws = torch.randint(1, 15, (len(ROWS), 2), generator=torch.Generator().manual_seed(0))
    engine.lengths = {f"train-{i}": row for i, row in enumerate(draws.tolist())}
    ages: list[int] = []
    for step in range(1, 51):
        engine.sync(step)
        taken = take(pool, prompts, step)
        ages += [step - int(g.policy_version.min()) for group in taken for g in group.own]
    assert 2 <= max(ages) <= 3 and ages.count(0) > 10


def test_a_piece_shorter_than_its_round_is_the_end() -> None:
    """An engine that ends a response by a limit of its own is not asked to go on."""
    engine, pool, prompts = scripted(Cut)
    first = take(pool, prompts, 1)
    assert len(engine.calls) == 1
    assert [g.finish_reason for group in first for g in group.own] == ["length"] * 4


# ---- the pool with a tiny model


ENDS = [1, 5, 9]
"""Tokens that end a response: about three in sixteen, so that lengths differ."""


def ending_policy() -> Policy:
    policy = make_policy()
    policy.model.generation_config.eos_token_id = ENDS
    return policy


def tiny_pool(policy: Policy, *, greedy: bool = False, **fields: object) -> Partial:
    settings = {"oversample": 1.0, "round_tokens": 2, "num_generations": 3}
    return Partial(engine_of(policy, **{**settings, **fields}), greedy=greedy)


def stream(policy: Policy) -> PromptStream:
    return PromptStream(Prompts("train", ROWS, policy.tokenizer), 0, 3, 12)


def next_step(pool: Partial, step: int) -> None:
    """Move the weights at the end of a step."""
    move(pool.engine.policy)  # type: ignore[attr-defined]
    pool.engine.sync(step + 1)


def by_version(past: Mapping[int, Policy], prompt: Prompt, g: Generation) -> torch.Tensor:
    """Each token's log-prob under the weights of its version, [T]."""
    found = {v: forward(past[v], prompt, g.response_ids) for v in past}
    return torch.stack([found[v][t] for t, v in enumerate(g.policy_version.tolist())])


@pytest.mark.parametrize("extra", [{}, {"top_k": 6}])
def test_each_token_has_the_log_prob_of_the_weights_of_its_version(extra: dict[str, int]) -> None:
    policy = ending_policy()
    pool, prompts = tiny_pool(policy, greedy=False, **extra), stream(policy)
    past: dict[int, Policy] = {}
    several = 0
    for step in range(1, 7):
        past[step] = copy.deepcopy(policy)
        for group in take(pool, prompts, step, n=3):
            assert len(group.own) == 3
            for g in group.own:
                versions = g.policy_version.tolist()
                assert versions == sorted(versions) and versions[-1] <= step
                several += len(set(versions)) > 1
                expected = by_version(past, group.request.prompt, g)
                torch.testing.assert_close(g.logp, expected, atol=2e-5, rtol=0)
                assert all(len(torch.as_tensor(x)) == len(g.logp) for x in g.extras.values())
                assert bool(g.extras) == bool(extra)
                assert (int(g.response_ids[-1]) in ENDS) == (g.finish_reason == "stop")
                assert len(g.logp) == 12 or g.finish_reason == "stop"
        next_step(pool, step)
    assert several > 5


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_vllm_goes_on_too() -> None:
    """Its log-probs are to 1e-4 those of the weights of each token's version."""
    pytest.importorskip("vllm")
    policy = models.make_policy()
    policy.model.generation_config.eos_token_id = ENDS
    settings = {"max_completion_length": 12, "kv_cache_gb": 0.1, "num_generations": 3}
    engine = VLLMRollout(VLLMConfig(**settings, oversample=1.0, round_tokens=2))
    engine.start(policy, seed=3)
    pool, prompts = Partial(engine, greedy=True), stream(policy)
    past: dict[int, Policy] = {}
    several = 0
    for step in range(1, 6):
        past[step] = copy.deepcopy(policy)
        for group in take(pool, prompts, step, n=3):
            assert group.greedy is not None
            for g in group.own:
                several += len(set(g.policy_version.tolist())) > 1
                expected = by_version(past, group.request.prompt, g)
                torch.testing.assert_close(g.logp, expected, atol=1e-4, rtol=0)
                assert len(g.logp) == 12 or g.finish_reason == "stop"
        models.change(policy, "", by=0.005)
        engine.sync(step + 1)
    engine.close()
    assert several > 2


def test_nothing_is_thrown_away() -> None:
    """Every prompt begun in eight steps is taken once or still in the pool, none twice."""
    policy = ending_policy()
    pool, prompts = tiny_pool(policy), stream(policy)
    taken = [name for step in range(1, 9) for name in names(take(pool, prompts, step, n=3))]
    left = [group.request.prompt.prompt_id.removeprefix("train-") for group in pool.pool]
    left += [request.prompt.prompt_id.removeprefix("train-") for request in pool.planned]
    begun = stream(policy).take(prompts.position)
    assert sorted(taken + left) == sorted(p.prompt_id.removeprefix("train-") for p in begun)


def test_the_first_round_of_a_run_draws_as_a_synchronous_step_does() -> None:
    """With rounds as long as responses, the oldest groups of step 1 are those of mode sync."""
    policy = make_policy()
    pool, prompts = tiny_pool(policy, round_tokens=12), stream(policy)
    partial = take(pool, prompts, 1, n=3)
    plain = OnDemand(engine_of(policy), greedy=False)
    asked = [Request(prompt=p, n=3) for p in stream(policy).take(2)]
    assert ids([group.own for group in partial]) == ids(
        [group.own for group in plain.completed(plan_of(asked, 1), None, 0)]
    )


def test_greedy_responses_are_those_of_the_step_that_takes_the_group() -> None:
    policy = ending_policy()
    pool, prompts = tiny_pool(policy, greedy=True), stream(policy)
    for step in range(1, 4):
        groups = take(pool, prompts, step, n=3)
        asked = [Request(prompt=group.request.prompt, n=1) for group in groups]
        now = engine_of(policy).generate(GenerationCall(asked, STREAM, greedy=True))
        assert ids([[group.greedy] for group in groups if group.greedy]) == ids(now)
        next_step(pool, step)


def test_the_state_holds_the_pool_and_gives_the_same_next_steps(tmp_path: Path) -> None:
    policy = ending_policy()
    pool, prompts = tiny_pool(policy, top_k=6, oversample=0.5), stream(policy)
    for step in (1, 2):
        take(pool, prompts, step, n=3)
        next_step(pool, step)
    assert any(g.unfinished and g.tokens for g in pool.pool), "something is under way"
    assert pool.planned, "something is planned"
    save_tree(tmp_path / "supply", pool.state_dict())
    other = copy.deepcopy(policy)
    resumed, again = tiny_pool(other, top_k=6, oversample=0.5), stream(other)
    again.load_state_dict(prompts.state_dict())
    resumed.load_state_dict(load_tree(tmp_path / "supply"), again)
    resumed.engine.sync(3)
    for step in (3, 4, 5):
        a, b = take(pool, prompts, step, n=3), take(resumed, again, step, n=3)
        assert names(a) == names(b) and figures_of(pool) == figures_of(resumed)
        for x, y in zip(chain(*(g.own for g in a)), chain(*(g.own for g in b)), strict=True):
            assert torch.equal(x.response_ids, y.response_ids) and torch.equal(x.logp, y.logp)
            assert torch.equal(x.policy_version, y.policy_version)
            assert torch.equal(torch.as_tensor(x.extras[KEPT]), torch.as_tensor(y.extras[KEPT]))
            assert x.finish_reason == y.finish_reason
        next_step(pool, step)
        next_step(resumed, step)


# ---- settings


def composed(*overrides: str) -> Any:
    chosen = import_before_compose(overrides)
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        config = hydra_compose("config", overrides=chosen)
    return OmegaConf.to_container(config, resolve=True)


def test_no_oversampling_is_the_plain_way() -> None:
    plain = compose(composed("output_dir=out", "rollout.round_tokens=3"))
    partial = compose(composed("output_dir=out", "rollout.oversample=0.5"))
    assert type(source_of(plain)) is OnDemand and type(source_of(partial)) is Partial


def test_an_engine_that_cannot_go_on_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an engine that can continue a response"):
        RolloutConfig(oversample=0.5)


def test_vllm_with_stop_texts_is_refused() -> None:
    VLLMSamplingConfig(oversample=0.5)
    VLLMSamplingConfig(stop=("#",))
    with pytest.raises(ValueError, match=r"with rollout.stop needs rollout=hf"):
        VLLMSamplingConfig(oversample=0.5, stop=("#",))
    VLLMSamplingConfig(draft="spec_rl")
    with pytest.raises(ValueError, match=r"rollout.draft=spec_rl with rollout.stop needs"):
        VLLMSamplingConfig(draft="spec_rl", stop=("#",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("algorithm=exgrpo",),
            "rlkit: buffer=exgrpo plans a step's prompts by what it knows when the step begins, "
            "and rollout.oversample=0.5 begins some earlier; use rollout.oversample=0, or a buffer "
            "that generates on new prompts",
        ),
        (
            ("algorithm=grpo", "rollout.mode=ahead"),
            "rollout.oversample=0.5 is for rollout.mode=sync; in mode ahead a step's responses are "
            "finished when it begins: leave it at 0",
        ),
    ],
)
def test_wrong_combinations_are_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = run(*arguments, "rollout.oversample=0.5", "dry_run=true", "output_dir=x", cwd=tmp_path)
    assert result.status == 2 and message in result.err
    assert len(result.err.splitlines()) == 1


# ---- whole runs

FEW = (UNEVEN, HALF, "rollout.oversample=1", "rollout.round_tokens=3")
"""Of the responses under way some are complete after two rounds, the others after five; and every
group teaches something."""
RUNS = {
    "grpo": ("algorithm=grpo",),
    "remix": ("algorithm=remix", "schedule.at=4"),
    "remax": ("algorithm=remax", "rollout.sync_every=2"),
}


@pytest.mark.usefixtures("own_registry")
def test_a_continued_response_is_not_fresh_in_a_real_step(tmp_path: Path) -> None:
    """Its prox_logp is one forward of the policy of the step, which its old tokens do not have;
    that of a response begun in the step is its behavior log-prob."""
    raw = composed(
        *(*SMALL, "algorithm=grpo", *FEW, "train.steps=4", "rollout.num_generations=4"),
        *("train.learning_rate=1e-3", "train.warmup_steps=0", f"output_dir={tmp_path}/out"),
    )
    made = compose(raw)
    session = open_session(made, RunScope.of(made))
    session.run_folder.open(raw, [], {}, 0)
    trainer = Trainer(session)
    early = replace(trainer.state.scorer, first=nothing_first)
    trainer.state.scorer = early  # every prox_logp is there when the batch is
    real = trainer._prepare
    seen: list[tuple[int, TrainBatch, torch.Tensor]] = []

    def watched(groups: Any, fresh: Any, step: int) -> TrainBatch:
        batch = real(groups, fresh, step)
        seen.append((step, batch, session.policy.logp(batch.tokens)))
        return batch

    trainer._prepare = watched  # type: ignore[method-assign]
    trainer.run()
    session.engine.close()
    gaps: list[float] = []
    for step, batch, now in seen:
        loss, continued = batch.loss, batch.loss.age > 0
        assert torch.equal(loss.prox_logp[~continued], loss.behavior_logp[~continued])
        assert torch.equal(
            loss.age, torch.tensor([step - int(s.policy_version.min()) for s in batch.samples])
        )
        torch.testing.assert_close(loss.prox_logp, now, atol=2e-4, rtol=0)
        for row in continued.nonzero().flatten().tolist():
            versions = batch.samples[row].policy_version
            gap = (loss.prox_logp - loss.behavior_logp)[row, : len(versions)].abs()
            assert (gap[versions == step] < 2e-4).all(), "sampled by the weights of this step"
            gaps += gap[versions < step].tolist()
    assert len(gaps) > 20 and max(gaps) > 0.01


def start(name: str, folder: Path, kill: str = "", *more: str) -> None:
    result = run(
        *(*COMMON, *RUNS[name], *FEW, *more, f"output_dir={folder}", "resume=auto"),
        cwd=folder.parent,
        env={"KILL": kill},
    )
    assert result.status == (-signal.SIGKILL if kill else 0), result.err


@cache
def uninterrupted(name: str) -> Path:
    folder = Path(mkdtemp(prefix="rlkit-whole-")) / "out"
    start(name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"),
    [("grpo", ["reward:4", "tree:9"]), ("remix", ["forward:90"]), ("remax", ["reward:8"])],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(
    name: str, kills: list[str], tmp_path: Path
) -> None:
    """ReMix before and after its rebirth, from which a step wants more groups; ReMax with greedy
    responses and weights that are synced every second step."""
    for kill in kills:
        start(name, tmp_path / "out", kill)
    start(name, tmp_path / "out")
    whole = uninterrupted(name)
    rows = without_times(metrics(tmp_path / "out"))
    assert rows == without_times(metrics(whole))
    mine, theirs = weights(tmp_path / "out"), weights(whole)
    assert all(torch.equal(value, mine[key]) for key, value in theirs.items())
    steps = [row for row in rows if "policy/loss" in row]
    assert steps[0]["off_policy/continued_fraction"] == 0
    assert any(0 < row["off_policy/continued_fraction"] < 1 for row in steps)
    assert any(row["off_policy/partial_groups"] > 0 for row in steps)
