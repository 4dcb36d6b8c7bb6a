"""A batch being generated: how many rows each forward has, and what each row gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import Request
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.stops import now_contain
from tests.tiny import make_policy, make_prompts

LIMITS = (1, 2, 2, 5)
"""Tokens of the responses."""


@pytest.mark.parametrize(("shares", "sizes"), [(True, [4, 3, 1, 1, 1]), (False, [4, 4, 1, 1, 1])])
def test_forwards_have_the_rows_that_go_on(shares: bool, sizes: list[int]) -> None:
    """Four prompts, then a token per row and forward; the last needs none after it."""
    policy, rows = make_policy(), list[int]()
    engine = HFRollout(HFConfig(max_completion_length=8))
    engine.start(policy, seed=0)
    engine.shares_prompts, engine.ends = shares, torch.zeros(0, dtype=torch.int64)
    prompts = make_prompts(policy, ["1+2=", "12+345=", "7=", "9="])
    asked = [Request(prompt=p, n=1, max_tokens=m) for p, m in zip(prompts, LIMITS, strict=True)]
    hook = policy.model.register_forward_pre_hook(
        lambda model, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    found = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    hook.remove()
    assert rows == sizes
    assert [len(g.response_ids) for (g,) in found] == [*LIMITS]
    full = [replace(request, max_tokens=5) for request in asked]
    longer = engine.generate(GenerationCall(full, ("t", 1, 0)))
    for (short,), (long,), limit in zip(found, longer, LIMITS, strict=True):
        assert short.response_ids.tolist() == long.response_ids[:limit].tolist()


def test_stop_texts_are_looked_for_in_rows_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the prefix ends a response with its first token; full rows stay in the batch."""
    policy, looked = make_policy(), list[int]()
    engine = HFRollout(HFConfig(max_completion_length=8, stop=("##",)))
    engine.start(policy, seed=0)
    engine.shares_prompts, engine.ends = False, torch.zeros(0, dtype=torch.int64)
    held = torch.tensor(policy.tokenizer("##")["input_ids"])
    prompt, *others = make_prompts(policy, ["1+2=", "7=", "9=", "8="])
    asked = [Request(prompt=prompt, n=1, prefix=held, max_tokens=5)]
    asked += [Request(prompt=p, n=1, max_tokens=m) for p, m in zip(others, LIMITS[1:], strict=True)]

    def look(tokenizer: Any, responses: Any, texts: Any, skip: bool) -> list[bool]:
        looked.append(len(responses))
        return now_contain(tokenizer, responses, texts, skip)

    monkeypatch.setattr("rlkit.rollout.hf_batch.now_contain", look)
    found = [g for (g,) in engine.generate(GenerationCall(asked, ("t", 1, 0)))]
    assert [len(g.response_ids) for g in found] == [1, 2, 2, 5]
    assert [g.finish_reason for g in found] == ["stop", "length", "length", "length"]
    assert looked == [3, 1, 1, 1]
