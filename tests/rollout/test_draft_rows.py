"""Rows with and without drafts: what is asked of the engine, what ends them, what is counted."""

from __future__ import annotations

import torch

from rlkit.batch import Request
from rlkit.rollout.base import Generation
from rlkit.rollout.draft_rows import Counts, Ends, Row, beginning, to_continue
from rlkit.rollout.partial import OPEN
from rlkit.rollout.stops import Stops, special_tokens
from rlkit.rollout.visits import Stored
from tests.tiny import make_policy, make_prompts, make_tokenizer

ANSWER = Generation(
    response_ids=torch.tensor([5, 6, 7]),
    logp=torch.tensor([-1.0, -2.0, -3.0]),
    policy_version=torch.tensor([1, 1, 2], dtype=torch.int32),
    finish_reason="stop",
    extras={"kept_logmass": torch.tensor([0.1, 0.2, 0.3]), "one": 4.0},
)


def test_a_beginning_keeps_what_each_token_had() -> None:
    found = beginning(ANSWER, 2)
    assert found.response_ids.tolist() == [5, 6] and found.logp.tolist() == [-1, -2]
    assert found.policy_version.tolist() == [1, 1] and found.finish_reason == OPEN
    assert found.extras["one"] == 4.0
    torch.testing.assert_close(found.extras["kept_logmass"], torch.tensor([0.1, 0.2]))


def test_neighbors_without_a_draft_share_a_request_and_others_have_their_prefix() -> None:
    first, second = (Request(prompt=p, n=4) for p in make_prompts(make_policy(), ["1=", "2="]))
    draft = Stored(ANSWER)
    rows = [
        Row(0, first, None),
        Row(1, first, None),
        Row(2, first, draft, so_far=beginning(ANSWER, 2)),
        Row(3, first, None),
        Row(4, second, None),
        Row(5, second, draft),
        Row(6, second, draft, so_far=beginning(ANSWER, 1)),
    ]
    asked = to_continue(rows)
    assert [(r.prompt.prompt_id, r.n, r.prefix.tolist()) for r in asked] == [
        ("train-0", 2, []),
        ("train-0", 1, [5, 6]),
        ("train-0", 1, []),
        ("train-1", 1, []),
        ("train-1", 1, []),
        ("train-1", 1, [5]),
    ]
    assert sum(r.n for r in asked) == len(rows) and to_continue([]) == []


def test_what_ends_a_response() -> None:
    tokenizer = make_tokenizer()
    stops = Stops.of(["#1"], special_tokens(tokenizer))
    ends = Ends(frozenset([1]), stops, tokenizer)

    def ids(text: str) -> torch.Tensor:
        return torch.tensor(tokenizer(text)["input_ids"])

    assert ends.after(torch.tensor([4, 1])) and ends.after(ids("3#1"))
    assert not ends.after(ids("3#2")) and not ends.after(torch.tensor([1, 4]))
    assert not Ends(frozenset(), Stops.of([], {}), tokenizer).after(ids("3#1"))


def test_a_text_with_a_special_token_is_looked_for_where_those_are_kept() -> None:
    tokenizer = make_tokenizer()
    stops = Stops.of(["3<pad>"], special_tokens(tokenizer))
    assert Ends(frozenset([1]), stops, tokenizer).after(torch.tensor([4, 5, 0]))
    assert not Ends(frozenset([1]), stops, tokenizer).after(torch.tensor([4, 0]))


def test_the_counts_by_name() -> None:
    counts = Counts(responses=4, drafts=2, tokens=40, kept=10, generated=28, saved=3, seconds=0.5)
    assert counts.metrics(stored=77) == {
        "rollouts/draft_found_fraction": 0.5,
        "rollouts/draft_kept_fraction": 0.25,
        "rollouts/draft_kept_mean": 5.0,
        "rollouts/draft_generated_tokens": 28,
        "rollouts/draft_steps_saved": 3,
        "rollouts/draft_stored_tokens": 77,
        "time/draft": 0.5,
    }
    assert Counts().metrics(stored=77) == {}
