"""Sequences as a model reads them: prompts padded on the left, responses on the right."""

from __future__ import annotations

import torch

from rlkit.interfaces import Tokens


def make() -> Tokens:
    prompts = [torch.tensor([5]), torch.tensor([6, 7, 8]), torch.tensor([9, 9])]
    responses = [torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([], dtype=torch.int64)]
    return Tokens.of(prompts, responses)


def test_prompts_and_responses_meet_in_the_middle() -> None:
    tokens = make()
    assert tokens.prompt_ids.tolist() == [[0, 0, 5], [6, 7, 8], [0, 9, 9]]
    assert tokens.response_ids.tolist() == [[1, 2], [3, 0], [0, 0]]
    assert tokens.lengths.tolist() == [3, 4, 2]


def test_rows_are_trimmed_to_their_longest() -> None:
    part = make().rows(torch.tensor([2, 0]))
    assert part.prompt_ids.tolist() == [[9, 9], [0, 5]]
    assert part.response_ids.tolist() == [[0, 0], [1, 2]]
    assert part.lengths.tolist() == [2, 3]
    alone = make().rows(torch.tensor([1]))
    assert alone.prompt_ids.tolist() == [[6, 7, 8]] and alone.response_ids.tolist() == [[3]]


def test_without_a_response_one_place_is_left() -> None:
    alone = make().rows(torch.tensor([2]))
    assert alone.response_ids.tolist() == [[0]] and alone.response_lengths.tolist() == [0]
    empty = Tokens.of([torch.tensor([1])], [torch.tensor([], dtype=torch.int64)])
    assert empty.response_ids.tolist() == [[0]]


def test_a_model_reads_real_tokens_at_their_positions() -> None:
    inputs = make().model_inputs(torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[0, 0, 5, 1, 2], [6, 7, 8, 3, 0], [0, 9, 9, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 1, 1, 0, 0]]
    positions = inputs["position_ids"]
    assert positions[0].tolist() == [0, 0, 0, 1, 2]
    assert positions[1, :4].tolist() == [0, 1, 2, 3]
