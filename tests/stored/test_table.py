"""Responses as rows, and back."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from rlkit.batch import Group
from rlkit.stored.card import Card
from rlkit.stored.table import schema, to_groups, to_table
from tests.stored.groups import TOKENIZER, group, same


def test_a_row_says_all_of_a_response() -> None:
    table = to_table([group(3)], TOKENIZER, offset=10, about=asdict(Card(model="m")))
    assert table.schema.names == schema().names
    row = table.to_pylist()[1]
    assert row["response_ids"] == [97, 98] and row["response"] == "ab"
    assert row["loss_mask"] == [True, False] and row["policy_version"] == [14, 14]
    assert row["step"] == 14 and row["group"] == 3 and row["sample_id"] == 4
    assert {e["name"]: e["value"] for e in row["rewards"]} == {"task": 0.5, "format": 1.0}
    assert [e["name"] for e in row["extras"]] == ["seed"]
    assert [e["name"] for e in row["token_extras"]] == ["kept"]
    assert b'"model": "m"' in table.schema.metadata[b"rlkit"]


def test_chats_are_messages_and_texts_are_texts() -> None:
    text, chat = (to_table([group(n)], TOKENIZER).to_pylist()[0] for n in (1, 2))
    assert (text["prompt"], text["messages"]) == ("question 1", None)
    assert (chat["prompt"], chat["messages"]) == (None, [{"role": "user", "content": "q"}])


def test_unknown_log_probs_are_null() -> None:
    made = group(0)
    unknown = replace(made.samples[1], behavior_logp=torch.full((2,), torch.nan))
    shown = replace(made.samples[2], source="expert")
    table = to_table(
        [Group(prompt=made.prompt, samples=[made.samples[0], unknown, shown])], TOKENIZER
    )
    assert [row is None for row in table.column("behavior_logp").to_pylist()] == [False, True, True]


def test_rows_become_groups_of_a_run_that_has_not_begun() -> None:
    rows = to_table([group(0), group(4)], TOKENIZER).to_pylist()
    found = to_groups(rows, range(-6, 0))
    assert all(same(a, b) for a, b in zip(found, [group(0), group(4)], strict=True))
    assert [s.sample_id for g in found for s in g.samples] == [-6, -5, -4, -3, -2, -1]
    assert {s.step for g in found for s in g.samples} == {0}


def test_groups_of_demonstrations_alone_stay_apart_and_in_one_file() -> None:
    """Two of one step, and the first again in a later one, as when its prompt comes again."""

    def shown(number: int, step: int) -> Group:
        (sample,) = group(3).samples[:1]
        only = replace(sample, sample_id=-number, source="expert", step=step)
        return Group(prompt=replace(group(3).prompt, prompt_id=f"p{number}"), samples=[only])

    rows = to_table([shown(7, 1), shown(8, 1), group(3), shown(7, 2)], TOKENIZER).to_pylist()
    assert len({row["group"] for row in rows}) == 4
    found = to_groups(rows, range(len(rows)))
    assert [g.prompt.prompt_id for g in found[:2]] == ["stored-p7", "stored-p8"]
