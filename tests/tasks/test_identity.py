"""What problems are called."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace

import numpy as np
import torch

from rlkit.batch import Prompt
from rlkit.tasks.identity import data_source, fingerprint, labels_of, row_hash, row_ids


def test_an_id_is_a_hash_of_the_row_and_copies_are_counted() -> None:
    one, two = {"prompt": "1+1=", "answer": "2"}, {"prompt": "1+1=", "answer": "3"}
    digest = hashlib.sha256(b'{"answer": "2", "prompt": "1+1="}').hexdigest()[:16]
    ids = row_ids("train", [one, two, one, one])
    assert ids[0] == f"train-{digest}" and ids[2:] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    assert ids[1] not in (ids[0], *ids[2:])


def test_every_kind_of_column_has_a_hash_that_does_not_change() -> None:
    """No address of an object, keys that are no text, arrays by their items."""

    class Thing:
        pass

    def row(**columns: object) -> str:
        return row_hash({"prompt": "a", **columns})

    assert row(x=Thing()) == row(x=Thing())
    assert row(x={(1, 2): "a", 3: {4}}) == row(x={3: {4}, (1, 2): "a"}) != row(x={(1, 2): "b"})
    long = np.arange(5000)
    assert row(x=long) == row(x=long.copy()) != row(x=np.where(long == 2500, 0, long))
    day = datetime.date(2026, 1, 2)
    assert row(x=day) != row(x=day.replace(day=3))
    assert row(x={"b", "a"}) == row(x={"a", "b"})


def test_a_fingerprint_is_of_all_ids_and_their_order() -> None:
    assert fingerprint(["a", "b"])["problems"] == 2
    found = [fingerprint(ids)["sha256"] for ids in (["a", "b"], ["b", "a"], ["a"], ["a", "c"])]
    assert len(set(found)) == 4


def test_a_reward_is_also_logged_by_source_and_by_the_task_of_a_mix() -> None:
    prompt = Prompt(prompt_id="p", text_or_messages="", ids=torch.tensor([1]), columns={})
    assert data_source(prompt) is None and labels_of(prompt, ["math"]) == []
    both = replace(prompt, columns={"data_source": "c", "task": "math"})
    assert data_source(both) == "c"
    assert labels_of(both, ["math"]) == ["source/c", "math"]
    assert labels_of(both, []) == ["source/c"], "a column of that name alone makes no mix"
