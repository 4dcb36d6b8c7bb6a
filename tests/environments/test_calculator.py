from __future__ import annotations

import pytest

from rlkit.environments.calculator import Calculator, total
from rlkit.environments.formats import FORMATS
from rlkit.interfaces import EpisodeContext
from tests.environments.asking import call, contents, events, opened, start


@pytest.mark.parametrize(
    ("expression", "value"), [("3", 3), ("12+34", 46), ("9+9+9", 27), ("007+1", 8)]
)
def test_sums_are_added(expression: str, value: int) -> None:
    assert total(expression) == value


@pytest.mark.parametrize("wrong", ["", "+1", "1+", "1-1", "2*3", "1 + 1", "9" * 10, "__import__"])
def test_nothing_else_is_read(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a sum"):
        total(wrong)


def test_its_tool_answers_and_errors_are_counted() -> None:
    calculator = opened(Calculator())
    assert calculator.begin([start()]) == [None]
    turn = call("calculate", expression="2+3") + call("calculate", expression="2*3")
    (observation,) = calculator.step([0], [turn + call("add") + call("calculate", text="1")])
    assert contents(observation) == [
        "5",
        "{'error': 'not a sum'}",
        "{'error': 'Tool add not found.'}",
        "{'error': 'calculate takes one argument, expression'}",
    ]
    assert events(observation) == {"calls": 4, "failed_calls": 3}
    assert calculator.rewards([0]) == [None]
    calculator.end([0])
    with pytest.raises(KeyError):
        calculator.step([0], ["3"])


def test_a_tiny_model_calls_it_with_a_question_mark() -> None:
    calculator = Calculator()
    calculator.open(EpisodeContext(parse=FORMATS["compact"]))
    calculator.begin([start()])
    (asked,) = calculator.step([0], ["1+2=?1+2"])
    assert contents(asked) == ["3"] and asked.said["content"] == "1+2="
    (told,) = calculator.step([0], ["#03"])
    assert told.done
