from __future__ import annotations

import pytest

from rlkit.environments.interpreter import fresh_names, run
from rlkit.environments.limits import OutOfTime, Told

FIRST_LINE = 'Traceback (most recent call last):\n  File "<code>", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("", ""),
        ("1 + 1", "2"),
        ("None", ""),
        ("x = 3", ""),
        ("print('a', end='')\nprint('b')\n'c'", "ab\n'c'"),
        ("import sys; print('e', file=sys.stderr)", "e"),
        ("def f(n):\n    return n and f(n - 1) + n\nf(3)", "6"),
        ("__name__", "'__main__'"),
    ],
)
def test_code_says_what_it_prints_and_its_last_value(code: str, output: str) -> None:
    assert run(code, fresh_names()) == output


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (
            "print(1)\ndef f():\n    1 / 0\nf()",
            '1\nTraceback (most recent call last):\n  File "<code>", line 4, in <module>\n'
            '  File "<code>", line 3, in f\nZeroDivisionError: division by zero',
        ),
        ("x =", '  File "<code>", line 1\n    x =\n       ^\nSyntaxError: invalid syntax'),
        (
            "raise SystemExit(3)",
            FIRST_LINE + "SystemExit: 3",
        ),
    ],
)
def test_an_error_is_shown_behind_the_output(code: str, output: str) -> None:
    with pytest.raises(Told) as told:
        run(code, fresh_names())
    assert str(told.value).strip() == output.strip()


def test_the_end_of_the_time_is_no_error_of_the_code() -> None:
    with pytest.raises(OutOfTime):
        run("raise late(1.0)", {"late": OutOfTime})
