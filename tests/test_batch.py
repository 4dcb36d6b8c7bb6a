"""The data between parts: padding, choosing rows, moving, what is left out."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.batch import (
    AdvantageBatch,
    AdvantageOutput,
    Corrected,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Prompt,
    Request,
    Score,
    Term,
)
from rlkit.interfaces import Phase
from rlkit.testing.advantages import examples

PROMPT = Prompt(prompt_id="p", text_or_messages="1+", ids=torch.tensor([5, 6]), columns={})


def make() -> LossBatch:
    """Three rows whose every number tells its place."""
    token = torch.arange(12.0).view(3, 4)
    row = torch.arange(3)
    return LossBatch(
        mask=token % 2 == 0,
        advantage=token,
        behavior_logp=token + 100,
        prox_logp=token + 200,
        anchor_logp={"base": token + 300},
        reward=row + 10.0,
        group=row + 20,
        age=row + 30,
        expert=row == 1,
        replayed=row != 1,
        truncated=row == 2,
        response_ids=token.long() + 400,
        rewards={"one": row + 40.0},
        extras={"token": token + 500, "row": row + 50.0},
    )


def tensors(batch: LossBatch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch by its place."""
    out: dict[str, torch.Tensor] = {}
    for name in LossBatch.__slots__:
        value = getattr(batch, name)
        inner = value if isinstance(value, dict) else {"": value}
        out |= {f"{name}.{key}": each for key, each in inner.items()}
    return out


def test_rows_are_those_asked_for_in_that_order_in_every_field() -> None:
    batch, index = make(), torch.tensor([2, 0])
    found, whole = tensors(batch.rows(index)), tensors(batch)
    assert found.keys() == whole.keys()
    for name, value in found.items():
        assert torch.equal(value, whole[name][index]), name


def test_every_field_moves_to_a_device() -> None:
    found = tensors(make().to(torch.device("meta")))
    assert {value.device.type for value in found.values()} == {"meta"}
    assert found.keys() == tensors(make()).keys()


def test_what_is_left_out_of_a_batch_is_zeros_of_its_shape() -> None:
    full = make()
    batch = LossBatch(
        **{
            name: getattr(full, name)
            for name in LossBatch.__slots__
            if name not in ("replayed", "truncated", "response_ids", "rewards", "extras")
        }
    )
    assert batch.truncated.tolist() == batch.replayed.tolist() == [False] * 3
    assert batch.response_ids.shape == (3, 4) and not batch.response_ids.any()
    assert batch.response_ids.dtype == torch.int64
    assert batch.rewards == batch.extras == {}
    assert replace(full).truncated.tolist() == [False, False, True], "what is given stays"
    assert torch.equal(replace(full).response_ids, full.response_ids)


def test_an_estimators_batch_gives_its_rows_too() -> None:
    """Its own fields as well: token rewards, and what is replayed, which may be left out."""
    turn = torch.arange(48.0).view(8, 6)
    full = replace(examples(), replayed=torch.arange(8) == 3, extras={"turn": turn})
    part = full.rows(torch.tensor([3, 0]))
    assert part.replayed.tolist() == [True, False] and part.age.tolist() == [0, 0]
    assert torch.equal(part.token_reward, full.token_reward[[3, 0]])
    assert torch.equal(part.rewards["task"], full.rewards["task"][[3, 0]])
    assert torch.equal(part.extras["turn"], turn[[3, 0]])
    given = {f: getattr(full, f) for f in AdvantageBatch.__slots__ if f != "replayed"}
    assert AdvantageBatch(**given).replayed.tolist() == [False] * 8


def test_a_request_is_read_from_its_prompt_to_the_end_of_its_prefix() -> None:
    assert Request(prompt=PROMPT, n=1).ids.tolist() == [5, 6]
    begun = Request(prompt=PROMPT, n=1, prefix=torch.tensor([7, 8]))
    assert begun.ids.tolist() == [5, 6, 7, 8]


def test_detached_terms_are_the_same_numbers_without_a_gradient() -> None:
    logp, entropy = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    found = PolicyTerms(logp=logp, entropy=entropy).detach()
    assert torch.equal(found.logp, logp) and torch.equal(found.entropy, entropy)
    assert not found.logp.requires_grad and not found.entropy.requires_grad


def test_what_parts_return_is_written_without_names_too() -> None:
    a, b, mask = torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    term = Term("policy", a, mask, 2.0, "token-sum", False)
    assert (term.weight, term.aggregation, term.corrected, term.rows) == (
        2.0,
        "token-sum",
        False,
        None,
    )
    assert LossOutput([term], {"x": a}).terms == [term] and PolicyTerms(a, b).entropy is b
    assert AdvantageOutput(a, b).returns is b and Corrected(make(), a).weight is a
    assert Request(PROMPT, 3).n == 3 and Score(a[0], 0.5, 1.5).advantage == 1.5
    assert Phase("on-policy", False, 1).updates_per_batch == 1
