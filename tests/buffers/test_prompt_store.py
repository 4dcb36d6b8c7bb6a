"""Responses by prompt, and how many there are."""

from __future__ import annotations

from buffers.repo import Repo
from rlkit.testing.base import stored
from tests.buffers.test_replay import one


def test_what_is_put_replaces_what_a_prompt_had_and_is_counted() -> None:
    store, samples = Repo(), one(1, n=5).samples
    store.put("a", samples[:3])
    store.put("b", samples[3:])
    assert len(store) == 5 and store.sizes[3] == store.sizes[2] == 1
    store.put("a", samples[:1])
    assert len(store) == 3 and store.stored["a"] == samples[:1] and store.sizes[3] == 0
    store.put("a", [])
    assert len(store) == 2 and list(store.stored) == ["b"]
    store.put("a", [])
    assert len(store) == 2, "a prompt without responses may leave"
    store.clear()
    assert len(store) == 0 and not store.stored


def test_a_state_holds_the_responses_in_their_order() -> None:
    store = Repo()
    for made, step in ((1, 1), (11, 1), (21, 2)):
        store.add([one(made, step)], step)
    again = Repo()
    again.add([one(31)], 1)
    again.load_state_dict(stored(store.state_dict()))
    names = {name: [s.sample_id for s in samples] for name, samples in again.stored.items()}
    assert names == {"prompt-0": [1, 2, 11, 12, 21, 22]}
    assert len(again) == len(store) == 6 and again.sizes == {6: 1}
