"""A run's environment: chosen, placed, refused in one line, told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.composition import Composition
from rlkit.composition.describe import components, describe
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.composition.session import source_of
from rlkit.composition.turns import check_problems, journals, remember, template_words
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.environments.mixed import Mixed
from rlkit.environments.on_main import OnMain
from rlkit.errors import UserError
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedEngine
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.turns_built import remembering
from rlkit.rollout.turns_partial import PartialTurns
from tests.compositions import composed
from tests.rollout.echo import Echo
from tests.tiny import make_chat_tokenizer

ECHO = "environment=tests.rollout.echo:Echo"
GOLD = "reward.environment.evaluation_only=true"
TOOL = '''
def double(x: int) -> int:
    """Doubles a number.

    Args:
        x: the number

    Returns:
        twice the number
    """
    return 2 * x
'''


class Two(Processes):
    """The first of two ranks."""

    rank, world_size = 0, 2

    def on_main(self, call: Any) -> Any:
        return call()


def chosen(*overrides: str, processes: Processes | None = None) -> Composition:
    """Composed with a user's parts, as the command line does."""
    arguments = import_before_compose(overrides)
    return composed(*arguments) if processes is None else composed(*arguments, processes=processes)


@pytest.mark.usefixtures("own_registry")
def test_it_is_placed_where_its_engine_is() -> None:
    here = chosen(ECHO, "environment.until=5", "turns.max=3")
    assert isinstance(here.rollouts, TurnsEngine) and isinstance(here.environment, Echo)
    assert here.rollouts.environment is here.environment and here.environment.config.until == 5
    assert here.rollouts.limits.max == 3 and not here.rollouts.looked_at
    shared = chosen(ECHO, processes=Two())
    assert isinstance(shared.rollouts, SharedEngine)
    assert isinstance(shared.rollouts.inner, TurnsEngine)
    partial = chosen(ECHO, "rollout.oversample=1")
    assert isinstance(partial.rollouts, TurnsEngine)
    assert type(source_of(partial)) is PartialTurns
    both = chosen(ECHO, "rollout.oversample=1", processes=Two()).rollouts
    assert isinstance(both, TurnsEngine) and isinstance(both.inner, SharedEngine)
    assert isinstance(both.environment, OnMain) and isinstance(both.environment.inner, Echo)
    apart = chosen(ECHO, "rollout.mode=ahead", "environment.size=2", "turns.max=5")
    assert isinstance(apart.rollouts, RemoteEngine) and apart.rollouts.episodes is not None
    assert apart.rollouts.episodes["environment"]["size"] == 2
    assert apart.rollouts.episodes["turns"]["max"] == 5


@pytest.mark.slow
@pytest.mark.usefixtures("own_registry")
def test_its_reward_is_the_run_s_unless_another_is_chosen() -> None:
    assert list(chosen(ECHO).rewards) == ["environment"]
    both = chosen(ECHO, "reward=[math,environment]", "reward.environment.weight=0.5")
    assert [r.config.weight for r in both.rewards.values()] == [1.0, 0.5]
    other = chosen(ECHO, "reward=[math]")
    assert "The environment's own reward is not used" in "\n".join(describe(other))
    with pytest.raises(UserError, match=r"reward=\[environment\].*there is no environment"):
        chosen("reward=[environment]")


@pytest.mark.usefixtures("own_registry")
def test_a_run_without_one_has_no_trace_of_it() -> None:
    c = chosen()
    assert c.environment is None and "environment" not in c.raw
    assert not any("environment" in line for line in describe(c))
    assert "environment" not in components(c)
    assert template_words(c, make_chat_tokenizer()) == []


@pytest.mark.usefixtures("own_registry")
def test_what_is_told_of_it() -> None:
    c = chosen(ECHO, "turns.max=3", "turns.seconds=5")
    told = "\n".join(describe(c))
    assert "environment=Echo: a response has at most 3 turns, and with what the environ" in told
    assert "turns.seconds=5 ends responses by the clock" in told
    assert components(c)["environment"]["import_path"] == "tests.rollout.echo:Echo"
    assert template_words(c, make_chat_tokenizer()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("rollout=layer_skip",), "rollout=layer_skip samples a whole response at once"),
        (
            ("rollout.oversample=0.5", "turns.seconds=3"),
            "turns.seconds=3 is for episodes that a st",
        ),
        (("rollout.oversample=0.5", "turns.concurrency=3"), "turns.concurrency=3 is for episodes"),
        (("turns.max=0",), "turns.max=0"),
        (("environment.until=-1",), "environment.until=-1"),
        (("turns.observation=3",), "unknown|turns.observation"),
    ],
)
@pytest.mark.usefixtures("own_registry")
def test_what_cannot_be_with_it(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(Exception, match=said):
        chosen(ECHO, *overrides)


@pytest.mark.slow
@pytest.mark.usefixtures("own_registry")
def test_rewards_that_read_environments_need_them_here(tmp_path: Path) -> None:
    file = tmp_path / "looking.py"
    file.write_text("def looking(environments, **kwargs):\n    return [1.0] * len(environments)\n")
    reward = f"reward=[{file}:looking]"
    here = chosen(ECHO, reward).rollouts
    assert isinstance(here, TurnsEngine) and here.looked_at
    with pytest.raises(UserError, match="reads the environments themselves"):
        chosen(ECHO, reward, "rollout.mode=ahead")
    with pytest.raises(UserError, match="reads the environments themselves"):
        chosen(ECHO, reward, processes=Two())
    with pytest.raises(UserError, match=r"have ended when a step takes .* rollout.oversample=0"):
        chosen(ECHO, reward, "rollout.oversample=1")


@pytest.mark.usefixtures("own_registry")
def test_its_run_remembers_calls_that_must_not_be_made_twice(tmp_path: Path) -> None:
    """Here and in the rollout process, in the run's folder; another start of it knows them."""
    c = chosen(ECHO, f"output_dir={tmp_path}")
    assert c.environment is not None
    remember(c)
    c.environment.context.note(5)
    assert (tmp_path / "called-once").read_text().split()[1] == "5"
    assert c.environment.again([5]) == [False]
    apart = chosen(ECHO, f"output_dir={tmp_path}", "rollout.mode=ahead").rollouts
    assert isinstance(apart, RemoteEngine) and apart.episodes is not None
    assert apart.episodes["journals"] == [str(tmp_path / "called-once")]
    other = chosen(ECHO, f"output_dir={tmp_path / 'b'}", f"resume={tmp_path}/checkpoint-2")
    assert journals(other.config)[0] == tmp_path / "b" / "called-once"
    assert tmp_path / "called-once" in journals(other.config)
    (tmp_path / "called-once").write_text("earlier 5\n")
    assert remembering(tmp_path / "called-once").noted == {5}
    remember(chosen())


@pytest.mark.usefixtures("own_registry")
def test_functions_are_tools(tmp_path: Path) -> None:
    (tmp_path / "own_tools.py").write_text(TOOL)
    c = chosen(f"tools=[{tmp_path}/own_tools.py:double]")
    assert c.environment is not None and isinstance(c.rollouts, TurnsEngine)
    (schema,) = c.environment.schemas({})
    assert schema["function"]["name"] == "double"
    assert c.raw["tools"] == [f"{tmp_path}/own_tools.py:double"]
    assert c.raw["plugins"] == [f"{tmp_path}/own_tools.py"], "its hash is kept with checkpoints"
    assert "environment=tools: a response has at most 8 turns" in "\n".join(describe(c))
    assert components(c)["environment"]["name"] == "tools"
    c.rollouts.environment.close()
    with pytest.raises(UserError, match="names no function"):
        chosen("tools=[double]")


@pytest.mark.usefixtures("own_registry")
def test_several_share_a_run() -> None:
    c = chosen("environment=[tests.rollout.echo:Echo,frozen_lake]", "+environment.of.Echo.size=2")
    assert isinstance(c.environment, Mixed) and set(c.environment.environments) == {
        "Echo",
        "frozen_lake",
    }
    assert c.environment.environments["Echo"].config.size == 2
    one = chosen("environment=[tests.rollout.echo:Echo]")
    assert isinstance(one.environment, Echo)
    assert "environment=several: a response" in "\n".join(describe(c))
    assert components(c)["environment"]["name"] == "several"


@pytest.mark.usefixtures("own_registry")
def test_its_reward_is_known_in_a_mix_and_if_it_only_evaluates() -> None:
    mix = "task.parts={a: {kind: arithmetic}, b: {kind: arithmetic, reward: [math]}}"
    mixed = chosen(ECHO, "task=mixed", mix)
    assert [*mixed.rewards] == ["a/environment", "b/math"]
    gold = chosen(ECHO, "reward=[math,environment]", GOLD)
    for c in (mixed, gold):
        assert not any("own reward is not used" in line for line in describe(c))
    own = mix.replace("math", "environment")
    for overrides in (("task=mixed", own), ("reward=[math,environment]", GOLD)):
        with pytest.raises(UserError, match="there is no environment"):
            chosen(*overrides)


@pytest.mark.slow
@pytest.mark.usefixtures("own_registry")
def test_compact_calls_need_one_tool_with_one_argument(tmp_path: Path) -> None:
    two = tmp_path / "two.py"
    two.write_text(
        TOOL.replace("x: int", "x: int, y: int").replace("number\n", "a\n        y: b\n", 1)
    )
    rows = [{"prompt": "1+1=", "answer": "2"}]
    compact = "turns.call_format=compact"
    for overrides in ((ECHO, compact), (f"tools=[{two}:double]", compact)):
        with pytest.raises(UserError, match=r"compact needs one tool with one argument"):
            check_problems(chosen(*overrides), rows)
    check_problems(chosen("environment=calculator", compact), rows)
    check_problems(chosen(ECHO), rows)


@pytest.mark.usefixtures("own_registry")
def test_a_prompt_that_begins_the_answer_is_none_for_an_environment() -> None:
    """Its own text would be added to the assistant's."""
    user, begun = {"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}
    check_problems(chosen(ECHO), [{"prompt": [user]}])
    with pytest.raises(UserError, match="^problem 1 ends with a message of the assistant"):
        check_problems(chosen(ECHO), [{"prompt": [user]}, {"prompt": [user, begun]}])


def test_what_an_environment_needs_is_asked_of_it_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(self: Echo) -> None:
        raise UserError("a package")

    monkeypatch.setattr(Echo, "require", lacking)
    for outer in (Mixed({"echo": Echo()}), OnMain(Echo(), SINGLE)):
        with pytest.raises(UserError, match="^a package$"):
            outer.require()
