"""In which order the prompts of a task are taken."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from rlkit.config.prompts import PromptsConfig
from rlkit.ops import stream_rng
from rlkit.tasks.orders import ORDERS, Shuffled
from rlkit.tasks.pass_rates import PassRates
from tests.tasks.answers import group_of

N = 8


def made(**settings: Any) -> Shuffled:
    """An order of the prompts at the places 10 to 17 of 20, with their rates."""
    config = PromptsConfig(**settings)
    ids = [f"p{i}" for i in range(20)]
    rates = PassRates(ids, np.full(20, np.nan), config.forget)
    places = np.arange(10, 10 + N)
    return ORDERS[config.order](places, partial(stream_rng, 4, "data"), config, rates)


def tell(order: Shuffled, **rewards: list[float]) -> None:
    assert order.rates is not None
    places = {name: i for i, name in enumerate(order.rates.ids)}
    groups = [group_of(name, each) for name, each in rewards.items()]
    order.rates.observe(groups, places, lambda g: [s.reward == 1 for s in g.samples])


def test_shuffled_takes_each_once_per_epoch() -> None:
    order = made()
    taken = order.take(5) + order.take(11) + order.take(8)
    epochs = [taken[i : i + N] for i in (0, N, 2 * N)]
    assert all(sorted(epoch) == list(range(10, 10 + N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3 and order.epochs == 3
    resumed = made()
    resumed.load_state_dict({"passed": 5})
    assert resumed.take(19) == taken[5:]


def test_solved_prompts_are_passed_over_until_all_are_solved() -> None:
    order = made(drop_solved=2, forget=0)
    for _ in range(2):
        tell(order, p10=[1, 1], p13=[1], p15=[1, 0])
    assert order.solved() == {0, 3}
    for _ in range(3):
        assert sorted(order.take(N - 2)) == [11, 12, 14, 15, 16, 17]
    tell(order, p13=[0])
    assert 13 in order.take(N - 1), "a prompt that fails again comes back"
    for _ in range(2):
        tell(order, **{f"p{i}": [1.0] for i in range(10, 10 + N)})
    assert order.solved() == set() and order.rates is not None
    assert order.rates.streak.max() >= 2, "to look changes nothing"
    order.take(1)
    assert order.rates.streak.max() == 0, "all are solved: they count anew"
    assert sorted(order.take(order.passed % N or N)) and len(order.take(40)) == 40


def test_easy_first_begins_with_the_highest_rates_and_a_resumed_epoch_keeps_its_order() -> None:
    order = made(order="easy_first", forget=0)
    first = order.take(N)
    assert first == made().take(N), "nothing is known in the first epoch: shuffled"
    tell(order, p12=[1, 1, 1], p16=[1, 1], p11=[0, 0], p17=[0, 0, 0])
    begun = order.take(3)
    assert begun[:2] == [12, 16]
    state = order.state_dict()
    tell(order, p17=[1] * 9, p12=[0] * 9)
    rest = order.take(N - 3)
    assert rest[-2:] == [11, 17], "an epoch keeps the order it began with"
    resumed = made(order="easy_first", forget=0)
    tell(resumed, p17=[1] * 9, p12=[0] * 9)
    resumed.load_state_dict(state)
    assert resumed.take(N - 3) == rest
    assert order.take(2) == [16, 17], "3/4 and 10/14"


def test_target_takes_those_whose_rate_is_near_it() -> None:
    """With much evidence the draws are near the means: 0, 1/7, ..., 1."""
    for target, expected in ((0.5, {13, 14}), (0.02, {10, 11}), (0.98, {16, 17})):
        order = made(order="target", target=target, forget=0)
        tell(order, **{f"p{10 + i}": [1.0] * (100 * i) + [0.0] * (700 - 100 * i) for i in range(N)})
        assert set(order.take(2)) == expected


def test_target_tries_unknown_prompts_and_forgets() -> None:
    order = made(order="target", target=0.5, forget=0.5)
    known = {f"p{10 + i}": [1.0] * 50 for i in range(N - 1)}
    tell(order, **known)
    taken = [order.take(1)[0] for _ in range(100)]
    assert taken.count(17) > 60, "the others are known to be easy"
    for _ in range(20):
        tell(order)
    assert len({order.take(1)[0] for _ in range(60)}) == N, "and are tried again when forgotten"


def test_target_takes_none_twice_in_a_call_and_depends_on_its_position() -> None:
    order = made(order="target")
    taken = [order.take(5) for _ in range(4)]
    assert all(len(set(each)) == 5 for each in taken) and len({tuple(t) for t in taken}) == 4
    assert sorted(made(order="target").take(2 * N)) == sorted(2 * list(range(10, 10 + N)))
    resumed = made(order="target")
    resumed.load_state_dict({"passed": 10})
    assert [resumed.take(5), resumed.take(5)] == taken[2:]


def test_target_leaves_out_what_is_solved() -> None:
    order = made(order="target", target=0.9, drop_solved=1, forget=0)
    tell(order, p10=[1, 1])
    assert all(10 not in order.take(N - 1) for _ in range(20))


@pytest.mark.parametrize("settings", [{"order": "hard_first"}, {"target": 1.0}, {"drop_solved": 0}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PromptsConfig(**settings)
