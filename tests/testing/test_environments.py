from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlkit.interfaces import Environment, Observation, PartConfig, Start
from rlkit.registry import entry, names, scoped
from rlkit.testing import check_environment
from tests.environments.asking import INCREMENT, ODD


@pytest.mark.slow
@pytest.mark.parametrize("name", names("environment"))
def test_the_environments_that_ship_keep_the_contract(name: str) -> None:
    part = entry("environment", name).cls
    check_environment(part(part.Config()))


@pytest.mark.parametrize("path", [f"{INCREMENT}:IncrementEnv", f"{ODD}:Journal"])
def test_users_classes_keep_it(path: str) -> None:
    with scoped():
        part = entry("environment", path).cls
    check_environment(part(part.Config(time_limit=0.2)))


class Wrong(Environment[PartConfig]):
    """Answers every turn with one observation."""

    seen = Observation(said={}, done=True)
    value: float | None = None
    texts = 0

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        return [None] * len(starts)

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        return [self.seen] * len(episodes)

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        return [self.value] * len(episodes)

    def end(self, episodes: Sequence[int]) -> None:
        """Forget nothing."""


class Counting(Wrong):
    """Counts the turns of all episodes together."""

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        self.texts += len(turns)
        message = {"role": "user", "content": str(self.texts)}
        return [Observation(said={}, messages=[message])] * len(episodes)


MESSAGE = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Observation(said={}), "or it is done and has none"),
        (Observation(said={}, done=True, messages=[MESSAGE]), "or it is done and has none"),
        (Observation(said={}, messages=[{**MESSAGE, "role": "system"}]), "the role tool or user"),
        (Observation(said={}, messages=[{**MESSAGE, "content": None}]), "the role tool or user"),
        (Observation(said={}, done=True, counts={"cals": 1}), "no counts called cals"),
    ],
)
def test_a_wrong_answer_is_named(seen: Observation, said: str) -> None:
    wrong = Wrong()
    wrong.seen = seen
    with pytest.raises(AssertionError, match=said):
        check_environment(wrong)


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "a finite number or None"), (1.0, "`scores` says")]
)
def test_a_wrong_reward_is_named(value: Any, said: str) -> None:
    wrong = Wrong()
    wrong.value = value
    with pytest.raises(AssertionError, match=said):
        check_environment(wrong)


def test_an_episode_that_depends_on_others_is_named() -> None:
    with pytest.raises(AssertionError, match="beside others"):
        check_environment(Counting())
