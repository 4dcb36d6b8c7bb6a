from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlkit.environments.host import LONGEST
from rlkit.environments.hosted import Hosted, HostedConfig
from rlkit.environments.own import environment_class, with_tools
from rlkit.errors import UserError
from rlkit.interfaces import Environment
from rlkit.ops import stream_seed
from rlkit.registry import entry, scoped
from tests.environments.asking import INCREMENT, ODD, call, contents, events, opened, start

TOOLS = ("sleepy", "async_sleepy", "process", "children", "blocks", "lengthy", "secret")


def of(path: str, **fields: Any) -> Hosted:
    with scoped():
        cls = entry("environment", path).cls
    assert issubclass(cls, Hosted)
    return cls(HostedConfig(**fields))


@pytest.fixture(scope="module")
def increment() -> Iterator[Environment[Any]]:
    environment = opened(of(f"{INCREMENT}:IncrementEnv"), calls_per_turn=2)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def journal() -> Iterator[Environment[Any]]:
    environment = opened(of(f"{ODD}:Journal", time_limit=0.3))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def tools() -> Iterator[Environment[Any]]:
    cls = with_tools(None, [f"{ODD}:{name}" for name in TOOLS])
    environment = opened(cls(HostedConfig(time_limit=0.5)))
    yield environment
    environment.close()


def test_trls_example_of_an_environment_runs_unchanged(increment: Environment[Any]) -> None:
    random.seed(5)
    target = random.randint(1, 6)
    told = increment.begin([start(1, 5), start(2, 5)])
    assert told == [f"Increment the counter by {target}."] * 2
    (schema,) = increment.schemas({})
    assert schema["function"]["name"] == "increment"
    assert schema["function"]["parameters"]["properties"]["step"]["type"] == "integer"
    one, two = increment.step(
        [1, 2], [call("increment", step=target), "I add." + call("increment", step=7)]
    )
    assert one.messages == [{"role": "tool", "name": "increment", "content": str(target)}]
    assert (contents(two), two.said["content"], two.done) == (["7"], "I add.", False)
    (last,) = increment.step([1], ["Done."])
    assert (last.done, last.finish_reason, last.messages) == (True, "stop", ())
    assert increment.scores
    assert increment.rewards([1, 2]) == [1.0, 0.0]
    one_handle, two_handle = increment.handles([1, 2])
    assert (one_handle.counter, two_handle.counter) == (target, 7)
    assert two_handle.increment(3) == 10
    with pytest.raises(UserError, match="`missing` failed: AttributeError"):
        _ = one_handle.missing
    increment.end([1, 2])


def test_trls_example_of_tools_runs_unchanged() -> None:
    cls = with_tools(None, [f"{INCREMENT}:multiply", f"{INCREMENT}:async_add"])
    environment = opened(cls(HostedConfig()))
    assert environment.begin([start()]) == [None]
    both = call("async_add", a=1, b=2) + call("multiply", a=3, b=4)
    (observation,) = environment.step([0], [both])
    assert contents(observation) == ["3", "12"]  # in the order of the calls
    assert events(observation) == {"calls": 2}
    assert not environment.scores and environment.rewards([0]) == [None]
    environment.close()


def test_what_goes_wrong_in_a_call_is_an_answer_that_is_counted(
    increment: Environment[Any],
) -> None:
    increment.begin([start()])
    turn = call("increment", step=1) + call("decrement") + call("increment", step=5)
    (observation,) = increment.step([0], [turn])
    assert contents(observation) == [
        "1",
        "{'error': 'Tool decrement not found.'}",
        "{'error': 'not run: at most 2 calls a turn'}",
    ]
    assert events(observation) == {"calls": 3, "failed_calls": 2}
    (observation,) = increment.step([0], [call("increment", steps=1) + "<tool_call>{</tool_call>"])
    wrong, unread = contents(observation)
    assert "unexpected keyword argument 'steps'" in wrong and "the call is not valid JSON" in unread
    assert events(observation) == {"calls": 1, "failed_calls": 1, "unparsable": 1}
    (observation,) = increment.step([0], [""])
    assert observation.done and events(observation) == {"void_turns": 1}
    for name in ("reset", "get_reward", "__init__", "_step"):
        (observation,) = increment.step([0], [call(name)])
        assert contents(observation) == [str({"error": f"Tool {name} not found."})]


def test_an_async_class_with_state_a_reward_and_an_end(journal: Environment[Any]) -> None:
    journal.begin([start(1, 3), start(2, 3), start(3, 4)])
    one, two, three = journal.handles([1, 2, 3])
    assert one.first == two.first != three.first  # equal seeds start alike
    turn = call("write", text="a") + call("write", text="b")
    first, second = journal.step([1, 2], [turn, turn])
    assert contents(first) != contents(second)  # and go on with draws of their own
    assert [text[0] for text in contents(first)] == ["a", "b"]
    assert one.notes == ["p", "a", "b"] and journal.rewards([1]) == [0.3]
    (ended,) = journal.step([1], [call("write", text="end")])
    assert ended.done and ended.finish_reason == "stop"


def test_an_episode_does_not_depend_on_others_and_can_be_repeated(
    journal: Environment[Any],
) -> None:
    turns = [call("write", text="a"), call("write", text="b")]

    def played(episode: int) -> list[str]:
        journal.begin([start(episode, 3)])
        return [contents(journal.step([episode], [turn])[0])[0] for turn in turns]

    first = played(7)
    journal.begin([start(8, 9), start(9, 3)])
    journal.step([8, 9], [turns[0], turns[1]])
    assert played(7) == first
    random.seed(stream_seed(0, "environment", 7))
    assert first == [f"a {random.random()}", f"b {random.random()}"]


def test_exceptions_and_the_end_of_the_time_are_answers_and_the_state_stays(
    journal: Environment[Any],
) -> None:
    journal.begin([start()])
    (observation,) = journal.step([0], [call("write", text="a") + call("fail") + call("leave")])
    assert contents(observation)[1:] == ["{'error': 'Game over.'}", "{'error': 'SystemExit: 2'}"]
    assert events(observation) == {"calls": 3, "failed_calls": 2}
    assert journal.handles([0])[0].notes == ["p", "a"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "event"), [("crash", "lost"), ("stubborn", "timeouts")])
def test_a_lost_environment_ends_its_episode_and_no_other(
    journal: Environment[Any], name: str, event: str
) -> None:
    journal.begin([start(1), start(2)])
    lost, other = journal.step([1, 2], [call(name), call("write", text="a")])
    assert (lost.done, lost.finish_reason, lost.messages) == (True, "tool_error", ())
    assert events(lost) == {"calls": 1, "failed_calls": 1, event: 1}
    assert not other.done and journal.rewards([1, 2]) == [None, 0.2]
    assert journal.handles([1])[0].notes is None


def test_tools_run_side_by_side_within_their_time(tools: Environment[Any]) -> None:
    tools.begin([start(i) for i in range(3)])
    tools.step([0, 1, 2], [call("process")] * 3)
    begun = time.monotonic()
    observations = tools.step(
        [0, 1, 2],
        [
            call("async_sleepy", seconds=0.3) * 4,
            call("sleepy", seconds=9),
            call("async_sleepy", seconds=9) + call("async_sleepy", seconds=0),
        ],
    )
    assert time.monotonic() - begun < 5  # one after the other: 20 s
    late = "{'error': 'no result after 0.5 s'}"
    assert [contents(o) for o in observations] == [["slept"] * 4, [late], [late, "slept"]]
    assert [events(o).get("timeouts", 0) for o in observations] == [0, 1, 1]


def test_an_episode_has_a_process_of_its_own_which_takes_its_children_along(
    tools: Environment[Any], tmp_path: Path
) -> None:
    tools.begin([start(1), start(2)])
    turn = call("process") + call("children", path=str(tmp_path))
    one, two = (list(map(int, contents(o))) for o in tools.step([1, 2], [turn, turn]))
    (again,) = tools.step([1], [call("process")])
    assert one[0] != two[0] and contents(again) == [str(one[0])]
    tools.end([1, 1, 99])
    assert wait_gone(one[0]) and wait_gone(one[1])
    assert contents(tools.step([2], [call("process")])[0]) == [str(two[0])]
    tools.close()
    assert wait_gone(two[0])


def wait_gone(pid: int) -> bool:
    for _ in range(200):
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, 0)
            if "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.05)
                continue
        return True
    return False


def test_results_become_texts(tools: Environment[Any]) -> None:
    tools.begin([start()])
    turn = call("blocks", kind="text") + call("blocks", kind="image") + call("lengthy", n=300_000)
    joined, listed, long = contents(tools.step([0], [turn])[0])
    assert joined == "ab" and listed.startswith("[{'type': 'text'")
    assert len(long) == LONGEST and long.startswith("?x")


def test_users_tools_see_the_runs_environment_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEARCH_KEY", "k4711")
    cls = with_tools(None, [f"{ODD}:secret"])
    environment = opened(cls(HostedConfig()))
    environment.begin([start()])
    assert contents(environment.step([0], [call("secret", name="SEARCH_KEY")])[0]) == ["k4711"]
    environment.close()


def test_a_limit_on_memory_is_an_answer() -> None:
    cls = with_tools(None, [f"{ODD}:lengthy"])
    environment = opened(cls(HostedConfig(memory_mb=64)))
    environment.begin([start()])
    assert contents(environment.step([0], [call("lengthy", n=10**9)])[0]) == ["{'error': ''}"]
    environment.close()


def test_a_host_that_was_killed_is_started_again(increment: Environment[Any]) -> None:
    assert isinstance(increment, Hosted)
    increment.begin([start(1)])
    ((process, _),) = increment._host._running
    process.kill()
    process.wait()
    (lost,) = increment.step([1], [call("increment", step=1)])
    assert lost.finish_reason == "tool_error" and events(lost)["lost"] == 1
    increment.begin([start(2)])
    assert contents(increment.step([2], [call("increment", step=1)])[0]) == ["1"]


def test_a_class_may_tell_its_state_and_what_a_turn_earned() -> None:
    """Properties, read where the episode is; without them, and when it is lost, nothing."""
    environment = opened(of(f"{ODD}:Stairs"))
    environment.begin([start(1), start(2)])
    assert environment.states([1, 2]) == ['{"height": 0}'] * 2
    environment.step([1, 2], [call("climb", steps=2), call("climb", steps=-1)])
    assert environment.states([2, 1]) == ['{"height": -1}', '{"height": 2}']
    assert environment.turn_rewards([1, 2]) == [2.0, None]
    environment.end([1])
    assert environment.states([1]) == [None] and environment.turn_rewards([1]) == [None]
    environment.step([2], [call("climb", steps=200)])
    with pytest.raises(UserError, match=r"turn_reward is 'far'; give a finite number or None"):
        environment.turn_rewards([2])
    channel = environment._open[2].channel  # type: ignore[attr-defined]
    os.killpg(channel.pid, signal.SIGKILL)
    assert environment.states([2]) == [None], "it died after its answer; the next turn says so"
    (lost,) = environment.step([2], [call("climb", steps=1)])
    assert lost.done and lost.finish_reason == "tool_error"
    environment.close()
    bare = opened(of(f"{ODD}:Journal"))
    bare.begin([start(1)])
    assert bare.states([1]) == [None] and bare.turn_rewards([1]) == [None]
    bare.close()


def test_a_function_that_makes_the_environment_and_tools_besides() -> None:
    with scoped():
        base = entry("environment", f"{ODD}:make_journal").cls
    cls = with_tools(base, [f"{INCREMENT}:multiply"])
    assert cls.__name__ == "Journal"
    environment = opened(cls(HostedConfig()))
    names = [schema["function"]["name"] for schema in environment.schemas({})]
    assert names == ["crash", "fail", "leave", "opinion", "stubborn", "write", "multiply"]
    environment.begin([start()])
    turn = call("multiply", a=2, b=3) + call("write", text="x")
    product, written = contents(environment.step([0], [turn])[0])
    assert product == "6" and re.fullmatch(r"x 0\.\d+", written)
    with pytest.raises(UserError, match="`opinion` failed: TypeError"):
        environment.handles([0])[0].opinion()
    environment.close()


def test_the_class_is_the_same_at_each_call() -> None:
    from tests.environments.users.odd import Journal  # type: ignore[import-untyped, unused-ignore]

    assert environment_class(Journal) is environment_class(Journal)


def test_a_call_that_must_not_be_made_twice_is_noted_before_it_is_made() -> None:
    noted: list[int] = []
    cls = with_tools(None, [f"{ODD}:pay", f"{ODD}:blocks"])
    assert issubclass(cls, Hosted) and cls.once == {"pay"}
    environment = opened(cls(), note=noted.append, noted={8})
    try:
        environment.begin([start(3), start(4), start(5)])
        turns = [call("blocks", kind="text"), call("pay", amount=2), "nothing"]
        answers = environment.step([3, 4, 5], turns)
        assert contents(answers[1]) == ["paid 2"] and noted == [4]
        assert environment.again([4, 8]) == [False, True]
        environment.step([3], [call("blocks", kind="text") + call("pay", amount=1)])
        assert noted == [4, 3]
    finally:
        environment.close()
    shop = of(f"{ODD}:Shop")
    assert shop.once == {"buy"} and not of(f"{INCREMENT}:IncrementEnv").once
    both = with_tools(type(shop), [f"{ODD}:pay"])
    assert issubclass(both, Hosted) and both.once == {"buy", "pay"}
