"""The options of `rlkit eval --on`."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest

from rlkit.composition.benchmark_options import (
    Options,
    add_options,
    options_of,
)
from rlkit.errors import UserError


def parsed(*arguments: str, overrides: tuple[str, ...] = ()) -> tuple[Options, list[str]]:
    parser = ArgumentParser()
    parser.add_argument("--out")
    add_options(parser)
    return options_of(parser.parse_args(arguments), overrides)


def test_settings_of_an_evaluation_mean_the_options() -> None:
    overrides = (
        *("eval.samples=8", "eval.sampling.temperature=1.0", "eval.k=[1,8]", "eval.greedy=true"),
        *("eval.data=some/folder", "seed=3", "eval.problems=5", "rollout=vllm"),
    )
    options, rest = parsed("--on", "aime24", overrides=overrides)
    assert (options.samples, options.temperature, options.k) == (8, 1.0, (1, 8))
    assert (options.greedy, options.data, options.limit) == (True, "some/folder", 5)
    assert rest == ["seed=3", "rollout=vllm"]
    assert parsed("--on", "a", "--samples", "4", overrides=overrides)[0].samples == 4


def test_without_benchmarks_nothing_is_taken() -> None:
    assert parsed(overrides=("eval.samples=8",)) == (Options(), ["eval.samples=8"])
    assert not Options().wanted
    with pytest.raises(UserError, match="--template is for named benchmarks: add --on or --suite"):
        parsed("--template", "chat")


@pytest.mark.parametrize("value", ["0", "1.5", "x", "nan"])
def test_top_p_is_a_share(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--on", "math500", "--top-p", value)
    assert "is not a number above 0 and at most 1" in capsys.readouterr().err
