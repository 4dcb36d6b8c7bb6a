"""Decoding with each prompt's keys and values once: exact, and left out where it would not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from rlkit.batch import Prompt, Request
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout import shared_prompts
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.grid import Grid
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.shared_prompts import (
    NotShareable,
    SharedLayer,
    SharedPrompts,
    attending,
    attention,
)
from tests.architectures import tiny_policy
from tests.tiny import make_policy, make_tokenizer

LENGTHS = (7, 1, 4, 9)
COUNTS = (5, 1, 3, 2)
WINDOW = 5
"""Shorter than some prompts and than all responses: it leaves the prompt while a row decodes."""
CPU = torch.device("cpu")


def windowed() -> Policy:
    """Layers with a sliding window and without, and two queries per key."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(
        "qwen3", vocab_size=16, use_sliding_window=True, sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"], initializer_range=0.2,
        eos_token_id=1, pad_token_id=0, bos_token_id=None, **sizes, **heads,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).train(False)
    return Policy(model, make_tokenizer(), 1.0)


def grouped(**settings: Any) -> Policy:
    """Two queries per key."""
    return make_policy(num_attention_heads=4, num_key_value_heads=2, **settings)


def requests(counts: Sequence[int] = COUNTS, **fields: Any) -> list[Request]:
    draw = torch.Generator().manual_seed(1)
    return [
        Request(
            prompt=Prompt(
                prompt_id=str(i),
                text_or_messages="",
                ids=torch.randint(2, 16, (length,), generator=draw),
                columns={},
            ),
            n=n,
            **fields,
        )
        for i, (length, n) in enumerate(zip(LENGTHS, counts, strict=True))
    ]


def engine(policy: Policy, *, shares: bool = True, tokens: int = 20) -> HFRollout:
    made = HFRollout(HFConfig(max_completion_length=tokens))
    made.start(policy, seed=2)
    assert made.shares_prompts
    made.shares_prompts = shares
    return made


def answers(made: HFRollout, asked: list[Request]) -> list[Generation]:
    return [g for group in made.generate(GenerationCall(asked, ("t", 1, 0))) for g in group]


def check_exact(policy: Policy, asked: list[Request], found: list[Generation]) -> None:
    """Log-probs of each response as a forward of it alone has them."""
    prompts = [r.ids for r in asked for _ in range(r.n)]
    for ids, g in zip(prompts, found, strict=True):
        alone = policy.logp(Tokens.of([ids], [g.response_ids]))[0]
        torch.testing.assert_close(g.logp, alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("make", [make_policy, grouped, windowed])
def test_log_probs_are_those_of_each_row_alone_while_rows_leave_one_by_one(make: Any) -> None:
    """At the end token, at 20 different places: first holes, then smaller grids."""
    policy, asked = make(), requests()
    found = answers(engine(policy), asked)
    assert len({len(g.response_ids) for g in found}) > 3, "rows that leave at different times"
    check_exact(policy, asked, found)
    other = answers(engine(policy, shares=False), asked)
    assert [g.response_ids.tolist() for g in found] == [g.response_ids.tolist() for g in other]


def test_responses_outgrow_their_first_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prompts, "FIRST_ROOM", 2)
    policy, asked = grouped(), requests()
    check_exact(policy, asked, answers(engine(policy), asked))


def test_a_prefix_counts_as_prompt() -> None:
    policy, asked = grouped(), requests(prefix=torch.tensor([5, 7]), max_tokens=6)
    found = answers(engine(policy), asked)
    assert max(len(g.response_ids) for g in found) == 6
    check_exact(policy, asked, found)


def test_autocast_and_bfloat16_round_no_more_than_the_model_s_own_attention() -> None:
    """The start-up check passes, whose bound follows from the model."""
    engine(make_policy(half=True))
    policy = make_policy()
    policy.autocast = torch.bfloat16
    engine(policy)


def test_a_prompt_s_keys_and_values_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 prompts of at most 9 tokens, 2 heads; 2 prompts once no response to the others is left."""
    sizes: list[tuple[int, int]] = []
    real = SharedLayer.attend

    def attend(self: SharedLayer, *args: Any) -> Tensor:
        sizes.append((self.prompt[0].shape[0], self.prompt[0].shape[1]))
        return real(self, *args)

    made = engine(make_policy())
    made.ends = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(SharedLayer, "attend", attend)
    answers(made, [replace(r, max_tokens=3 + i % 2) for i, r in enumerate(requests())])
    assert sizes == [(8, 9)] * 4 + [(4, 9)] * 2, "two layers, and forwards after tokens 1, 2 and 3"


@pytest.mark.parametrize("break_at", ["move", "write"])
def test_wrong_states_are_noticed_and_the_model_s_own_cache_is_used(
    break_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller grid with its responses exchanged; a token written into another's place."""
    if break_at == "move":
        right = SharedLayer.move
        monkeypatch.setattr(
            SharedLayer, "move", lambda s, g, r, row, column: right(s, g, r, row.flip(0), column)
        )
    else:
        write = Grid.write
        monkeypatch.setattr(Grid, "write", lambda s, into, each: write(s, into, each.flip(0)))
    policy = make_policy()
    made = HFRollout(HFConfig(max_completion_length=8))
    made.start(policy, seed=2)
    assert not made.shares_prompts
    monkeypatch.undo()
    asked = requests()
    check_exact(policy, asked, answers(made, asked))


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "gemma3n_text", "lfm2", "bloom"])
def test_models_with_other_attention_or_states_keep_their_own_cache(kind: str) -> None:
    """Soft-capped scores, sinks, shared layers, convolutions, ALiBi."""
    made = HFRollout(HFConfig())
    made.start(tiny_policy(kind), seed=0)
    assert made.state_dict() == {"shares_prompts": False}


def test_a_resumed_engine_decodes_as_before() -> None:
    made = engine(make_policy())
    made.load_state_dict({"shares_prompts": False})
    assert made.state_dict() == {"shares_prompts": False}
    made.load_state_dict({})
    assert made.state_dict() == {"shares_prompts": False}


def cache(rows: int = 2, width: int = 3) -> SharedPrompts:
    made: Any = DynamicCache()
    made.update(torch.zeros(rows, 1, width, 4), torch.zeros(rows, 1, width, 4), 0)
    mask = torch.ones(rows, width, dtype=torch.int64)
    return SharedPrompts(made, torch.arange(rows), mask, 5, CPU)


def test_the_model_s_attention_is_restored_even_after_an_error() -> None:
    model: Any = make_policy().model
    before = model.config._attn_implementation
    with pytest.raises(KeyError), attending(model, cache()):
        assert model.config._attn_implementation == shared_prompts.NAME
        raise KeyError
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    "more", [{"softcap": 3.0}, {"s_aux": torch.zeros(1)}, {"dropout": 0.1}, {"sliding_window": 2}]
)
def test_attention_it_does_not_compute_is_refused(more: dict[str, Any]) -> None:
    """A window of a layer whose cache is of another one, too."""
    made = cache()
    made.shared[0].window = 3 if "sliding_window" in more else None
    query = key = torch.zeros(2, 1, 1, 4)
    with attending(make_policy().model, made):
        key, value = made.update(key, key, 0)
        if "sliding_window" not in more:
            attention(None, query, key, value, None)
        with pytest.raises(NotShareable):
            attention(None, query, key, value, None, **more)
        with pytest.raises(NotShareable, match="not those of the cache"):
            attention(None, query, key.clone(), value, None, sliding_window=made.shared[0].window)


def test_a_cache_of_another_kind_is_refused() -> None:
    with pytest.raises(NotShareable, match="a NoneType"):
        SharedPrompts(None, torch.zeros(1), torch.ones(1, 1), 1, CPU)


def test_attention_by_hand() -> None:
    """Values 0 and 6 of two prompt tokens, 3 of the own one, equal scores: their mean.

    The first prompt token of row 1 is padding.
    """
    made: Any = DynamicCache()
    values = torch.tensor([0.0, 6.0]).view(1, 1, 2, 1).expand(2, 1, 2, 1)
    made.update(torch.zeros(2, 1, 2, 1), values, 0)
    mask = torch.tensor([[1, 1], [0, 1]])
    shared = SharedPrompts(made, torch.tensor([0, 0, 1]), mask, 4, CPU)
    query = torch.zeros(3, 1, 1, 1)
    with attending(make_policy().model, shared):
        key, value = shared.update(query, torch.full((3, 1, 1, 1), 3.0), 0)
        out, _ = attention(None, query, key, value, None)
    assert out.flatten().tolist() == [3.0, 3.0, 4.5]
