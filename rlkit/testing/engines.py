"""What a rollout engine must do, tried on the embedded model."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from rlkit.batch import Prompt, Request
from rlkit.config.run import ModelConfig
from rlkit.config.sampling import Sampling
from rlkit.interfaces import Tokens
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rollout.base import EVALUATION, Generation, GenerationCall, RolloutEngine
from rlkit.testing.base import require

LONGEST = 12
STEP = 3
CLOSE = 0.05
"""Nats per token that an engine's log-probs may be off; another policy's are off by more."""
PROBLEMS = ("3+8+5+9+2=", "1+2+3+4+5=", "9+9+1+7+4=")


@contextmanager
def started(engine: RolloutEngine[Any]) -> Generator[tuple[RolloutEngine[Any], Policy]]:
    """An engine of the same settings, for short responses, with a policy at step 3."""
    short = {**engine.config.model_dump(), "max_completion_length": LONGEST}
    tried = type(engine)(type(engine.config).model_validate(short))
    folder, device = embedded_model_dir(0), ModelConfig(device="cpu")
    policy = load_policy(device, folder, engine.config.temperature)
    tried.start(policy, 0)
    try:
        tried.sync(STEP)
        yield tried, policy
    finally:
        tried.close()


def requests(policy: Policy, n: int) -> list[Request]:
    """Sums, each with one response more than the one before."""
    return [
        Request(
            prompt=Prompt(
                prompt_id=f"train-{i}",
                text_or_messages=text,
                ids=torch.tensor(policy.tokenizer(text)["input_ids"]),
                columns={},
            ),
            n=n + i,
        )
        for i, text in enumerate(PROBLEMS)
    ]


def each_request_gets_its_responses(engine: RolloutEngine[Any]) -> None:
    """As many as asked, in order, of the shapes and types a sample has."""
    with started(engine) as (tried, policy):
        asked = requests(policy, 1)
        found = tried.generate(GenerationCall(asked, ("rollout", STEP, 0)))
        require(
            [len(group) for group in found] == [request.n for request in asked],
            f"asked for {[request.n for request in asked]} responses, it generated "
            f"{[len(group) for group in found]}",
        )
        for generation in (each for group in found for each in group):
            is_whole(generation)
        part = GenerationCall(asked, ("rollout", STEP, 0), part=slice(1, 2))
        require(len(tried.generate(part)) == 1, "it answers more requests than `part` names")


def is_whole(generation: Generation) -> None:
    """Check the fields of one response."""
    g, length = generation, len(generation.response_ids)
    require(0 < length <= LONGEST, f"a response has {length} tokens; at most {LONGEST} are allowed")
    require(g.response_ids.dtype == torch.int64, "response_ids is not int64")
    require(g.logp.shape == (length,) and g.logp.dtype == torch.float32, "logp is not [T] float32")
    require((g.logp <= 1e-6).all() and g.logp.isfinite().all(), "logp holds no log-probabilities")
    require(
        g.policy_version.dtype == torch.int32 and g.policy_version.tolist() == [STEP] * length,
        "policy_version is not [T] int32 with the step that `sync` was called with",
    )
    require(g.finish_reason in ("stop", "length"), f"finish_reason is {g.finish_reason!r}")


def log_probs_are_those_of_the_policy(engine: RolloutEngine[Any]) -> None:
    """At the sampling temperature, also of greedy responses and after the policy has learned."""
    with started(engine) as (tried, policy):
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(0.9)
        tried.sync(STEP + 1)
        asked = requests(policy, 1)
        for greedy in (False, True):
            call = GenerationCall(asked, ("rollout", STEP, 0), greedy=greedy)
            pairs = [
                (request.prompt.ids, each)
                for request, group in zip(asked, tried.generate(call), strict=True)
                for each in group
            ]
            tokens = Tokens.of([ids for ids, _ in pairs], [g.response_ids for _, g in pairs])
            own = policy.logp(tokens).detach().cpu()
            off = max(
                float((row[: len(g.logp)] - g.logp).abs().max())
                for row, (_, g) in zip(own, pairs, strict=True)
            )
            require(
                off <= CLOSE,
                f"its log-probs are off by up to {off:.2f} nats from those of the policy it was "
                "last synchronised with",
            )


def a_stream_names_the_draws(engine: RolloutEngine[Any]) -> None:
    """The same stream gives the same responses, another one others."""
    with started(engine) as (tried, policy):

        def texts(step: int) -> list[list[int]]:
            found = tried.generate(GenerationCall(requests(policy, 4), ("rollout", step, 0)))
            return [each.response_ids.tolist() for group in found for each in group]

        require(texts(1) == texts(1), "the same stream gives other responses at a second call")
        require(texts(1) != texts(2), "another step's stream gives the same responses")


def a_call_may_sample_in_its_own_way(engine: RolloutEngine[Any]) -> None:
    """With `samples_apart`, a call's sampling takes the place of the engine's, for that call."""
    if not engine.config.samples_apart:
        return
    with started(engine) as (tried, policy):
        call = GenerationCall(requests(policy, 4), (f"{EVALUATION}-kit", STEP, 0))
        plain = [g.response_ids.tolist() for group in tried.generate(call) for g in group]
        own = replace(call, sampling=Sampling(max_completion_length=3, top_k=1))
        groups = tried.generate(own)
        require(
            all(len(g.response_ids) <= 3 for group in groups for g in group),
            "it generates more tokens than a call's own sampling allows",
        )
        require(
            all(torch.equal(g.response_ids, each[0].response_ids) for each in groups for g in each),
            "with top_k=1 in a call's own sampling the responses to a prompt differ",
        )
        again = [g.response_ids.tolist() for group in tried.generate(call) for g in group]
        require(plain == again, "a call's own sampling changes later calls")


def numbers_name_the_draws(engine: RolloutEngine[Any]) -> None:
    """With `continues`, a response has the draws of its number, whoever else is asked for.

    Episodes of an environment need it: they leave the batch one by one.
    """
    if not engine.config.continues:
        return
    with started(engine) as (tried, policy):
        first, second, third = requests(policy, 2)

        def drawn(some: list[Request], numbers: list[int]) -> list[list[list[int]]]:
            call = GenerationCall(some, ("rollout", STEP, 0), numbers=numbers)
            return [[g.response_ids.tolist() for g in group] for group in tried.generate(call)]

        whole = drawn([first, second, third], list(range(9)))
        rest = drawn([second, replace(third, n=1)], [2, 3, 4, 5])
        require(
            rest == [whole[1], whole[2][:1]],
            "a response changes when others leave the batch: its draws must follow from "
            "`call.numbers` where they are given",
        )


ENGINE = (
    each_request_gets_its_responses,
    log_probs_are_those_of_the_policy,
    a_stream_names_the_draws,
    a_call_may_sample_in_its_own_way,
    numbers_name_the_draws,
)
