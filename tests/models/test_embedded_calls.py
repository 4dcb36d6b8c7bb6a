"""The embedded model with a calculator: demonstrations, tokens and template, and its weights."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.environments.formats import call_parser, format_of
from rlkit.environments.rendering import keeps_prefix, observation_ids, template_notes
from rlkit.interfaces import EpisodeContext, Start
from rlkit.models import embedded_calls
from rlkit.models.embedded import EOS, PAD, make_model
from rlkit.models.embedded_calls import (
    CHARACTERS,
    ORIGIN,
    SHIPPED,
    CallsRecipe,
    calls_model_dir,
    calls_stream,
    demonstration,
    encoded,
    make_calls_tokenizer,
    warm_up_calls,
)
from rlkit.registry import build
from rlkit.tasks.arithmetic import split
from rlkit.tasks.encode import Encoder

NUMBERS = (347, 682, 915)
AGAIN = "run `python benchmarks/make_embedded_base.py`"


@pytest.fixture(autouse=True)
def unshifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLKIT_BASE_SHIFT", raising=False)


@pytest.mark.parametrize(
    ("draws", "turns"),
    [
        ((0.54, 0.0, 0.0), ("#1944",)),
        ((0.56, 0.49, 0.0), ("?347+682+915", "1944=", "#1944")),
        ((0.56, 0.51, 0.31), ("?347+682", "1029=", "#1029")),
        ((0.56, 0.51, 0.29), ("?347+682", "1029=", "?1029+915", "1944=", "#1944")),
    ],
)
def test_a_demonstration_guesses_asks_for_all_or_for_a_part(
    draws: tuple[float, ...], turns: tuple[str, ...]
) -> None:
    recipe = replace(CallsRecipe(), guess=0.55, whole=0.5, second=0.3)
    assert demonstration(NUMBERS, draws, recipe) == ("347+682+915=", *turns)


def test_only_what_the_model_says_is_its_own() -> None:
    tokens, own = encoded([("1+2=", "?1+2", "3=", "#3"), ("4+5=", "#9")])
    tokenizer = make_calls_tokenizer()
    assert tokenizer.decode(tokens[0]) == "1+2=?1+2<eos>3=#3<eos>"
    assert tokenizer.decode(tokens[0][own[0]]) == "?1+2<eos>#3<eos>"
    assert tokenizer.decode(tokens[1][own[1]]) == "#9<eos>"
    assert bool((tokens[1][7:] == PAD).all()) and not own[1][7:].any()


def test_the_warm_up_never_sees_a_held_out_problem_and_has_the_recipes_shares() -> None:
    recipe = replace(CallsRecipe(), steps=60)
    held_out, tokenizer = {row["prompt"] for row in split(3, 3)[1]}, make_calls_tokenizer()
    texts = [
        str(tokenizer.decode(row, skip_special_tokens=False))
        for tokens, _ in calls_stream(recipe, seed=0)
        for row in tokens
    ]
    assert not {text[:12] for text in texts} & held_out
    guesses = sum(text[12] == "#" for text in texts) / len(texts)
    # 3840 draws: five standard deviations are 0.04
    assert abs(guesses - recipe.guess) < 0.04


def test_the_warm_up_repeats_bit_for_bit_and_differs_by_seed() -> None:
    short = replace(CallsRecipe(), steps=2, batch=4)
    first, again, other = (warm_up_calls(short, seed, progress=False) for seed in (3, 3, 4))
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert not first.training


def test_every_constant_and_the_seed_are_in_the_folders_name() -> None:
    recipe = CallsRecipe()
    names = {recipe.folder_name(0), recipe.folder_name(1)}
    for field in fields(recipe):
        changed: Any = {field.name: getattr(recipe, field.name) + 1}
        names.add(replace(recipe, **changed).folder_name(0))
    assert len(names) == 2 + len(fields(recipe))


def test_what_ships_is_small_and_what_the_recipe_makes_now() -> None:
    weights, origin = SHIPPED / "model.safetensors", json.loads(ORIGIN.read_text())
    assert sha256(weights.read_bytes()).hexdigest() == origin["model.safetensors"]
    assert weights.stat().st_size <= 700_000
    assert origin["made_from"] == CallsRecipe().folder_name(0), AGAIN
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    assert tokenizer.get_vocab() == make_calls_tokenizer().get_vocab()
    assert tokenizer.chat_template == make_calls_tokenizer().chat_template


def test_seed_0_ships_and_others_are_made_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path))
    made: list[int] = []

    def untrained(recipe: CallsRecipe, seed: int, progress: bool) -> Any:
        made.append(seed)
        return make_model(recipe, seed, CHARACTERS)

    monkeypatch.setattr(embedded_calls, "warm_up_calls", untrained)
    assert calls_model_dir(progress=False) == SHIPPED
    folder = calls_model_dir(2, progress=False)
    assert folder == tmp_path / CallsRecipe().folder_name(2)
    assert calls_model_dir(2, progress=False) == folder and made == [2]
    monkeypatch.setenv("RLKIT_BASE_SHIFT", "-2")
    assert calls_model_dir(2, progress=False) == SHIPPED


def test_a_call_and_its_answer_are_written_as_in_the_demonstrations() -> None:
    """Prompt, turn, observation, turn by the run's own means have the tokens of a demonstration."""
    tokenizer, recipe = make_calls_tokenizer(), replace(CallsRecipe(), guess=0.0, whole=1.0)
    shown = demonstration(NUMBERS, (0.5, 0.5, 0.5), recipe)
    prompt = Encoder(tokenizer).encode([{"role": "user", "content": shown[0]}])
    turn = [*tokenizer(shown[1])["input_ids"], EOS]
    calculator = build("environment", "calculator")
    calculator.open(EpisodeContext(parse=call_parser(tokenizer)))
    calculator.begin([Start(episode=0, row={}, seed=0)])
    (seen,) = calculator.step([0], [tokenizer.decode(turn)])
    answer = observation_ids(tokenizer, turn, seen.messages)
    last = Encoder(tokenizer).response(shown[3])
    assert [*prompt, *turn, *answer, *last] == encoded([shown])[0][0].tolist()


def test_an_error_comes_back_as_one_character_and_unknown_ones_are_read_as_it() -> None:
    tokenizer = make_calls_tokenizer()
    error = {"role": "tool", "name": "calculate", "content": "{'error': 'not a sum'}"}
    turn = [*tokenizer("?1+")["input_ids"], EOS]
    assert tokenizer.decode(observation_ids(tokenizer, turn, [error])) == "!="
    assert tokenizer.decode(tokenizer("a1")["input_ids"]) == "!1"


def test_the_template_shows_its_format_and_needs_no_words() -> None:
    tokenizer = make_calls_tokenizer()
    assert format_of(tokenizer) == "compact"
    assert keeps_prefix(tokenizer)
    assert template_notes(tokenizer, tools=True) == []


def test_the_base_seldom_asks_for_the_whole_sum_and_cannot_guess_it() -> None:
    """The mean probability of each way to the answer on 200 held-out problems: nothing is drawn."""
    model: Any = AutoModelForCausalLM.from_pretrained(SHIPPED)
    problems = split(3, 3)[1].problems[:200]

    def likely(*draws: float) -> float:
        tokens, own = encoded([demonstration(p, draws, CallsRecipe()) for p in problems])
        with torch.no_grad():
            logp = model(tokens[:, :-1]).logits.log_softmax(-1)
        of_token = logp.gather(2, tokens[:, 1:, None])[..., 0]
        return float((of_token * own[:, 1:]).sum(1).exp().mean())

    guess, whole = likely(0, 0, 0), likely(0.99, 0, 0)
    part, second = likely(0.99, 0.99, 0.99), likely(0.99, 0.99, 0)
    assert guess < 0.03
    assert 0.1 < whole < 0.35
    assert part > 0.05
    assert guess + whole + second < 0.4
