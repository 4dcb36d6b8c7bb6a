"""What options, suite and defaults make together."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.composition.benchmark_options import (
    MAX_TOKENS,
    TEMPERATURE,
    TOP_P,
)
from rlkit.composition.benchmark_plan import Plan, settings_of
from rlkit.errors import UserError
from rlkit.evaluation.benchmarks import REMIX
from rlkit.evaluation.examination import Protocol
from tests.composition.test_benchmark_options import parsed

RAW = {"model": {"dtype": "float32"}, "rollout": {"name": "hf"}, "seed": 0}


def plan(*arguments: str, overrides: tuple[str, ...] = ()) -> Plan:
    return Plan.of(parsed(*arguments, overrides=overrides)[0], ["arithmetic"])


def protocol(of: Plan, number: int = 0) -> Protocol:
    return of.protocol(of.targets[number])


def test_defaults_are_an_evaluations_own() -> None:
    one = plan("--on", "math500")
    assert one.sampling.given == {
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "top_k": 0,
        "max_completion_length": MAX_TOKENS,
    }
    assert (protocol(one).samples, protocol(one).greedy, one.key) == (1, False, "original")


def test_the_remix_suite_is_the_papers_protocol() -> None:
    suite = plan("--suite", "remix")
    assert [target.name for target in suite.targets] == list(REMIX.benchmarks)
    assert [protocol(suite, i).samples for i in range(5)] == [32, 32, 1, 1, 1]
    assert protocol(suite).greedy and suite.key == "remix" and suite.template == "remix"
    assert suite.sampling.given == {
        "temperature": 0.1,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": 8192,
    }
    other = plan("--suite", "remix", "--samples", "4", "--key", "original", "--template", "plain")
    assert [protocol(other, i).samples for i in range(5)] == [4] * 5
    assert (other.key, other.template) == ("original", "plain")
    assert [t.name for t in plan("--suite", "remix", "--on", "aime24").targets] == ["aime24"]


@pytest.mark.parametrize("arguments", [("--temperature", "0"), ("--samples", "0")])
def test_greedy_alone(arguments: tuple[str, ...]) -> None:
    one = protocol(plan("--on", "math500", *arguments))
    assert (one.samples, one.greedy) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "overrides", "said"),
    [
        (("--suite", "remixx"), (), "Did you mean 'remix'"),
        (("--on", "math500", "--key", "mine"), (), "the keys are original, remix"),
        (("--on", "math500", "--samples", "2", "--k", "4"), (), "--samples 4"),
        (("--on", "math500"), ("eval.samples=-1",), "eval.samples=-1: .*at least 0"),
        (("--on", "math500"), ("eval.greedy=maybe",), "neither true nor false"),
        (("--on", "math500"), ("eval.samples=0", "eval.greedy=false"), "nothing to evaluate"),
    ],
)
def test_a_wrong_value_is_one_line(
    arguments: tuple[str, ...], overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        plan(*arguments, overrides=overrides)


def test_the_folder_differs_with_what_the_samples_depend_on() -> None:
    def folder(*arguments: str, seed: int = 0, weights: str = "w") -> Path:
        one = plan("--on", "math500", *arguments)
        return one.folder(settings_of(one, RAW | {"seed": seed}, "org/My Model", weights))

    base = folder()
    assert base == folder("--k", "1") and base.name.startswith("org-My_Model-")
    others = [folder("--temperature", "1"), folder("--greedy"), folder(seed=1)]
    others.append(folder(weights="v"))
    assert len({base, *others}) == 5
    assert folder("--out", "here") == Path("here")


def test_the_default_length_fits_the_model_and_a_given_one_stays() -> None:
    assert plan("--on", "math500").fitting(100).max_tokens == 100
    assert plan("--on", "math500").fitting(10**6).max_tokens == MAX_TOKENS
    assert plan("--on", "math500", "--max-tokens", "500").fitting(100).max_tokens == 500
    assert plan("--suite", "remix").fitting(100).max_tokens == 8192


def test_chunks_hold_whole_problems() -> None:
    one = protocol(plan("--on", "math500", "--samples", "3", "--chunk", "8"))
    assert one.slices(5) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert protocol(plan("--on", "a.jsonl", "--samples", "9", "--chunk", "8")).chunk == 1
