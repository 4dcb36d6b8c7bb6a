from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.environments.own import environment_class, with_tools
from rlkit.errors import UserError
from rlkit.interfaces import Environment
from rlkit.registry import entry, scoped
from tests.environments.asking import INCREMENT, ODD, call, opened, start

DOC = '"""Act.\n\n    Args:\n        x: What.\n    """'
RESET = "    def reset(self, **row): pass\n"
ACT = f"    def act(self, x: int) -> int:\n        {DOC}\n        return x\n"

WRONG_TOOLS = [
    ("def f(x: int): return x", ":f", "has no docstring"),
    ('def f(x: int):\n    """Act."""', ":f", "no description for the argument 'x'"),
    (f"def f(x):\n    {DOC}", ":f", "missing a type hint"),
    (f"def f(x: Nothing):\n    {DOC}", ":f", "Nothing"),
    (f"def f(*x: int):\n    {DOC}", ":f", "takes *x"),
    (f"def f(**x: int):\n    {DOC}", ":f", "takes *x"),
    (f"def f(x: int, /):\n    {DOC}", ":f", "by position only"),
    ("f = lambda x: x", ":f", "has no docstring"),
    ("f = 3", ":f", "is no function, but an int"),
    ("class f:\n    def __call__(self, x: int): pass", ":f", "is no function, but a type"),
    (
        f"def made():\n    def f(x: int):\n        {DOC}\n    return f\ng = made()",
        ":f",
        "has no 'f'",
    ),
    (f"def searches(x: int):\n    {DOC}", ":search", "Did you mean 'searches'"),
    (f"def f(x: int):\n    {DOC}", "", "names no function"),
    ("def f(:", ":f", "SyntaxError"),
    ("import not_there_4711", ":f", "not_there_4711"),
    ("raise RuntimeError('at import')", ":f", "at import"),
    (None, ":f", "does not exist"),
]

WRONG_CLASSES = [
    (f"class E:\n{ACT}", "no method reset"),
    (f"class E:\n    reset = None\n{ACT}", "no method reset"),
    (f"class E:\n{RESET}", "no public method"),
    (f"class E:\n{RESET}    def _act(self): pass\n", "no public method"),
    (f"class E:\n{RESET}    def act(self, x: int): pass\n", "has no docstring"),
    (
        f"class E:\n{RESET}{ACT}    def __init__(self, url): pass\n",
        "__init__ needs the argument 'url'",
    ),
    (
        f"class E:\n{RESET}{ACT}    def get_reward(self, text): pass\n",
        "get_reward needs the argument",
    ),
    (
        f"class A:\n{RESET}{ACT}\ndef E(): raise ValueError('no server')",
        "cannot be made: ValueError",
    ),
    ("def E(url): pass", "cannot be made: TypeError"),
    ("E = 3", "is not a part"),
    (
        f"def made():\n  class E:\n    def reset(self): pass\n{ACT}  return E\nF = [made()]\n",
        "has no 'E'",
    ),
]

WRONG_STARTS = [
    (f"class E:\n    def reset(self, missing): pass\n{ACT}", "needs the argument 'missing'"),
    (f"class E:\n    def reset(self, prompt): raise KeyError('hint')\n{ACT}", "KeyError: 'hint'"),
    (f"class E:\n    def reset(self): return 3\n{ACT}", "it returned int"),
    (f"class E:\n    def __init__(self): raise OSError('port')\n    def reset(self): pass\n{ACT}",
     "OSError: port"),
    (f"import os\nclass E:\n    def reset(self): os._exit(1)\n{ACT}", "its process died"),
    (f"class E:\n    def reset(self):\n        while True: pass\n{ACT}", "more than 0.2 s"),
    (f"import sys\nclass E:\n    def reset(self): sys.exit(3)\n{ACT}", "SystemExit: 3"),
    (f"class E:\n    def reset(self, thing): pass\n{ACT}", "column 'thing' cannot be handed"),
    (f"import sys\nif 'pytest' not in sys.modules: raise ValueError\nclass E:\n{RESET}{ACT}",
     "did not start; it said"),
    (f"class E:\n    async def reset(self):\n        import asyncio; await asyncio.sleep(9)\n{ACT}",
     "more than 0.2 s"),
]  # fmt: skip

WRONG_REWARDS = [
    ("'high'", "could not convert string to float"),
    ("float('nan')", "a reward is a finite number"),
    ("[1.0]", "TypeError"),
    ("self.missing", "AttributeError"),
]


def one_line(error: pytest.ExceptionInfo[UserError], said: str) -> None:
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("code", "name", "said"), WRONG_TOOLS)
def test_a_wrong_tool_gets_one_line(tmp_path: Path, code: str | None, name: str, said: str) -> None:
    file = tmp_path / f"wrong_{abs(hash((code, name)))}.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(UserError) as error:
        with_tools(None, [f"{file}{name}"])
    one_line(error, said)


@pytest.mark.parametrize(("code", "said"), WRONG_CLASSES)
def test_a_wrong_class_gets_one_line(tmp_path: Path, code: str, said: str) -> None:
    file = tmp_path / f"wrong_{abs(hash(code))}.py"
    file.write_text(code)
    with scoped(), pytest.raises(UserError) as error:
        entry("environment", f"{file}:E")
    one_line(error, said)


def of(tmp_path: Path, code: str) -> Environment:
    file = tmp_path / f"own_{abs(hash(code))}.py"
    file.write_text(code)
    with scoped():
        cls = entry("environment", f"{file}:E").cls
    built: Environment = opened(cls(cls.Config(start_limit=0.2)))
    return built


@pytest.mark.parametrize(("code", "said"), WRONG_STARTS)
def test_an_environment_that_does_not_start_gets_one_line(
    tmp_path: Path, code: str, said: str
) -> None:
    environment = of(tmp_path, code)
    first = start(thing=object() if "thing" in said else 1)
    with pytest.raises(UserError) as error:
        environment.check([first.row])
        environment.begin([first])
    one_line(error, said)
    environment.close()


@pytest.mark.parametrize(("value", "said"), WRONG_REWARDS)
def test_a_wrong_reward_gets_one_line(tmp_path: Path, value: str, said: str) -> None:
    code = f"class E:\n{RESET}{ACT}    def get_reward(self): return {value}\n"
    environment = of(tmp_path, code)
    environment.begin([start()])
    with pytest.raises(UserError) as error:
        environment.rewards([0])
    one_line(error, said)
    environment.close()


def test_two_tools_of_one_name_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        with_tools(None, [f"{INCREMENT}:multiply", f"{INCREMENT}:multiply"])
    one_line(error, "two tools are called 'multiply'")
    with scoped(), pytest.raises(UserError) as error:
        with_tools(entry("environment", "calculator").cls, [f"{INCREMENT}:multiply"])
    one_line(error, "tools= go with an environment of your own, and Calculator has its own")


def test_what_is_known_to_the_script_alone_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        def reset(self) -> None:
            """Start."""

        def act(self) -> str:
            """Act."""
            return ""

    with pytest.raises(UserError) as error:
        environment_class(Here)
    one_line(error, "made by a function or a call; put it into a file of its own")
    monkeypatch.setattr(Here, "__module__", "__main__")
    environment_class.cache_clear()
    with pytest.raises(UserError) as error:
        environment_class(Here)
    one_line(error, "known to this script alone")


def test_reset_gets_the_columns_it_takes() -> None:
    with scoped():
        cls = entry("environment", f"{ODD}:Journal").cls
    assert (cls.columns, cls.needed) == ({"prompt", "start"}, {"prompt"})
    environment = opened(cls(cls.Config()))
    environment.check([{"prompt": "p", "answer": 3}])
    assert environment.begin([start(answer=object())]) == [None]
    (observation,) = environment.step([0], [call("write", text="x")])
    assert not observation.done
    environment.close()
