"""The embedded model: made from training problems alone, repeatable, whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlkit.models import embedded
from rlkit.models.embedded import (
    PAD,
    Recipe,
    demonstrations,
    embedded_model_dir,
    make_model,
    make_tokenizer,
    stream,
    warm_up,
)
from rlkit.tasks.arithmetic import response, running_sums, score_sum, split

SHORT = Recipe(steps=3, batch=4)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def texts(tokens: torch.Tensor) -> list[str]:
    tokenizer = make_tokenizer()
    return [str(tokenizer.decode(row)) for row in tokens]


def test_the_warm_up_never_sees_a_held_out_problem_nor_a_pad():
    recipe = Recipe()
    train, held_out = (set(rows.problems) for rows in split(5))
    seen = set()
    for tokens in stream(recipe, seed=0):
        assert tokens.shape == (recipe.batch, 22)
        seen |= {tuple(row) for row in (tokens[:, 0:10:2] - embedded.ZERO).tolist()}
        assert bool((tokens != PAD).all())
    assert not seen & held_out
    assert seen <= train
    assert len(seen) > 30_000


def test_a_demonstration_that_forgets_nothing_is_right(generator):
    problems = torch.tensor(split(5)[0].problems)
    for text in texts(demonstrations(problems, 50, 0.0, generator)):
        prompt, answer = text.removesuffix("<eos>").split("=")
        operands = [int(digit) for digit in prompt.split("+")]
        assert answer == response(running_sums(operands))
        assert text.endswith("<eos>")


def test_a_demonstration_that_forgets_every_carry_goes_on_from_the_wrong_sums(generator):
    only = torch.tensor([[3, 8, 5, 9, 2]])
    (always,) = texts(demonstrations(only, 1, 1.0, generator))
    # 3+8 = 11 -> 01; 1+5 = 6; 6+9 = 15 -> 05; 5+2 = 7
    assert always == "3+8+5+9+2=01,06,05#07<eos>"


def test_a_carry_is_forgotten_as_often_as_the_recipe_says(generator):
    only = torch.tensor([[9, 9, 1, 1, 1]])  # one carry: 18, then 19, 20 carries again
    written = [text.split("=")[1] for text in texts(demonstrations(only, 4000, 0.25, generator))]
    forgotten = sum(text.startswith("08") for text in written) / 4000
    assert abs(forgotten - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_the_warm_up_is_the_same_bit_for_bit_and_differs_by_seed():
    first, again, other = (warm_up(SHORT, seed, progress=False) for seed in (3, 3, 4))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_warm_up_does_not_depend_on_the_global_random_state():
    torch.manual_seed(1)
    first = warm_up(SHORT, 0, progress=False)
    torch.manual_seed(2)
    again = warm_up(SHORT, 0, progress=False)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)


def test_the_warm_up_leaves_the_random_state_and_the_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(99)
        state = torch.random.get_rng_state()
        warm_up(SHORT, 0, progress=False)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_is_put_back_after_an_error(monkeypatch):
    def interrupted(recipe: Recipe, seed: int) -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(embedded, "stream", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            warm_up(SHORT, 0, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_learning_rate_rises_and_falls_linearly():
    recipe = Recipe(steps=101, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [recipe.learning_rate_at(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


@pytest.mark.slow
def test_a_short_warm_up_already_learns_the_format():
    """After 60 steps the commas, the '#' and the end stand where they belong."""
    model = warm_up(Recipe(steps=60), 0, progress=False)
    (tokens,) = stream(Recipe(steps=1), seed=1)
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits[:, 9:]
    separators = tokens[:, 10:].view(-1, 4, 3)[..., 2]
    predicted = logits.argmax(-1).view(-1, 4, 3)[..., 2]
    assert bool((predicted == separators).all())
    assert not model.training


def test_the_model_is_small_and_its_heads_are_32_wide():
    model = make_model(Recipe(), 0)
    assert sum(weight.numel() for weight in model.parameters()) == 166_208
    assert model.config.head_dim == 32
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_the_warm_up_is_adamw_on_the_response_with_clipped_gradients_and_its_schedule():
    recipe = Recipe(steps=6, batch=4, warmup_steps=2, max_grad_norm=0.3, weight_decay=0.5)
    model = make_model(recipe, 0)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.5)
    for step, tokens in enumerate(stream(recipe, seed=0)):
        logp = model(tokens).logits.log_softmax(-1)[:, 9:21]
        loss = -logp.gather(2, tokens[:, 10:, None]).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        assert norm > 0.3
        for weight, gradient in zip(model.parameters(), gradients, strict=True):
            weight.grad = gradient * 0.3 / norm
        optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
        optimizer.step()
    for made, wanted in zip(
        warm_up(recipe, 0, progress=False).parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(made, wanted, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_the_embedded_model_is_weak_and_knows_the_format():
    """Sampled pass@1 of the real base on 1024 held-out problems is between 0.15 and 0.40."""
    folder = embedded_model_dir(progress=False)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    rows = split(5)[1][:1024]
    ids = torch.tensor(tokenizer([row["prompt"] for row in rows])["input_ids"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=True
        )
    written = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    right = sum(score_sum(text, row["answer"]) for text, row in zip(written, rows, strict=True))
    assert 0.15 < right / 1024 < 0.40
    assert sum(text.count("#") == 1 for text in written) > 1000
