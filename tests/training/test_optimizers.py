"""Which weights decay, which rates they have, and what each optimizer does with them."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM, Trainer

from rlkit.config.run import TrainConfig
from rlkit.distributed.learner import Learner
from rlkit.errors import UserError
from rlkit.models.critic import Critic
from rlkit.testing.base import stored
from rlkit.training.optimizers import (
    Several,
    check_optimizer,
    check_patterns,
    decays,
    groups_of,
    hidden_matrices,
    make_optimizer,
    set_rate,
)
from tests.tiny import make_policy

SIZES: dict[str, Any] = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: make_policy().model,
    "critic": lambda: Critic(make_policy().model),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, **SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=4,
            **SIZES,
        )
    ),
}


IN_LAYER = re.compile(r"layers\.|\.h\.")


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(settings)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_that_decay_are_those_of_transformers(name: str) -> None:
    """LayerNorms (of GPT-2, without "norm" in their names), RMSNorms, norms of queries, biases."""
    module = MODELS[name]()
    expected = Trainer.get_decay_parameter_names(None, module)  # type: ignore[arg-type]
    assert decays(module) == set(expected) & {n for n, _ in module.named_parameters()}
    assert 0 < len(decays(module)) < len(list(module.named_parameters()))


def test_muon_is_for_the_inner_matrices_of_a_module_that_is_no_language_model() -> None:
    """Its last linear layer is the output layer."""
    inner = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 1))
    assert hidden_matrices(inner) == {"0.weight"}
    assert hidden_matrices(nn.LayerNorm(4)) == set()


def test_a_vector_of_no_telling_name_does_not_decay() -> None:
    module = nn.ModuleDict({"gate": nn.Linear(2, 2)})
    module["gate"].scale = nn.Parameter(torch.ones(2))
    assert decays(module) == {"gate.weight"}


def test_only_what_decays_shrinks() -> None:
    """Without a gradient's push a step is w (1 - rate * decay)."""
    model = make_policy().model
    optimizer = make_optimizer("policy", model, config(weight_decay=0.5))
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    set_rate("policy", learner_of(model, optimizer), 0.1)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in model.named_parameters():
        factor = 0.95 if name in decays(model) else 1.0
        torch.testing.assert_close(weight.detach(), factor * before[name])


def test_by_default_all_weights_are_one_group_in_the_order_of_the_model() -> None:
    model = make_policy().model
    optimizer = make_optimizer("policy", model, config())
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert all(a is b for a, b in zip(group["params"], model.parameters(), strict=True))
    plain = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    assert optimizer.state_dict() == plain.state_dict(), "as checkpoints have had it"


def by_loops(learner: Learner) -> Learner:
    """The same weights, copied, under torch's AdamW that goes from weight to weight."""
    module = copy.deepcopy(learner.module)
    (group,) = learner.optimizer.param_groups
    settings = {name: group[name] for name in ("lr", "betas", "weight_decay")}
    return learner_of(module, torch.optim.AdamW(module.parameters(), foreach=False, **settings))


def decaying() -> Learner:
    """AdamW on a matrix; weights, moments and decay all count."""
    torch.manual_seed(0)
    module = nn.Linear(13, 7, bias=False)
    learner = learner_of(module, make_optimizer("policy", module, config(weight_decay=0.1)))
    set_rate("policy", learner, 1e-2)
    return learner


def pushed(learner: Learner, steps: range) -> None:
    for number in steps:
        draw = torch.Generator().manual_seed(number)
        for weight in learner.module.parameters():
            weight.grad = torch.randn(weight.shape, generator=draw)
        learner.step()


def assert_alike(a: Learner, b: Learner) -> None:
    """Weights and moments up to the rounding of float32."""
    for one, other in zip(a.module.parameters(), b.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        for name, value in b.optimizer.state[other].items():
            torch.testing.assert_close(a.optimizer.state[one][name], value, rtol=1e-5, atol=1e-9)


def test_the_fused_adamw_moves_as_the_plain_one() -> None:
    fused = decaying()
    plain = by_loops(fused)
    start = copies(fused)
    pushed(fused, range(20))
    pushed(plain, range(20))
    assert_alike(fused, plain)
    assert not torch.equal(*start, *copies(fused))


@pytest.mark.parametrize("fused_first", [True, False])
def test_a_state_goes_on_under_the_other_kind_of_adamw(fused_first: bool) -> None:
    """Step 4 differs from a step 1 by the corrections of the moments, which read `step`."""
    fused = decaying()
    plain = by_loops(fused)
    first, second = (fused, plain) if fused_first else (plain, fused)
    pushed(first, range(3))
    second.module.load_state_dict(first.module.state_dict())
    second.load_state_dict(stored(first.state_dict()))
    for learner in (first, second):
        pushed(learner, range(3, 5))
    assert_alike(fused, plain)


@pytest.mark.parametrize("half", [False, True])
def test_no_gradient_is_left_after_a_step(half: bool) -> None:
    module = nn.Linear(3, 2).to(torch.bfloat16 if half else torch.float32)
    learner = learner_of(module, make_optimizer("policy", module, config()))
    learner.backward(sum(weight.sum() for weight in module.parameters()))  # type: ignore[arg-type]
    assert all(weight.grad is not None for weight in learner.masters.trained)
    learner.step()
    held = [*module.parameters(), *learner.masters.trained]
    assert all(weight.grad is None for weight in held)


def learner_of(module: nn.Module, optimizer: Any) -> Learner:
    return Learner(module, module, optimizer)


def test_a_weight_has_the_rate_of_the_first_pattern_found_in_its_name() -> None:
    model = make_policy().model
    scales = {r"layers\.0": 0.5, "^policy.*layers": 2.0, "critic": 9.0}
    train = config(lr_scale=scales, weight_decay=0.1)
    learner = learner_of(model, make_optimizer("policy", model, train))
    logged = set_rate("policy", learner, 1e-3)
    assert logged == {r"policy/lr_layers\.0": 5e-4, "policy/lr_^policy.*layers": 2e-3}
    rates = {
        id(w): group["lr"] for group in learner.optimizer.param_groups for w in group["params"]
    }
    for name, weight in model.named_parameters():
        expected = 5e-4 if "layers.0" in name else 2e-3 if "layers" in name else 1e-3
        assert rates[id(weight)] == expected, name
    assert len(learner.optimizer.param_groups) == 6, "each rate with decay and without"
    critic = Critic(model)
    beside = learner_of(critic, make_optimizer("critic", critic, config(lr_scale={"head": 10})))
    assert set_rate("critic", beside, 1e-2) == {"critic/lr_head": 0.1}


def test_a_pattern_must_set_the_rate_of_a_trained_weight() -> None:
    model = make_policy().model
    check_patterns(config(lr_scale={"layers": 2, "critic": 3}), {"policy": model, "critic": model})
    for scales, wrong in (
        ({"layers": 2, "critic": 3}, "critic"),
        ({"layers": 2, r"layers\.1": 3}, r"layers\.1"),
    ):
        with pytest.raises(UserError) as error:
            check_patterns(config(lr_scale=scales), {"policy": model, "critic": None})
        assert f"'{wrong}'" in str(error.value)
        assert "policy.model.embed_tokens.weight" in str(error.value)
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(UserError, match="lm_head"):
        check_patterns(config(lr_scale={"lm_head": 2}), {"policy": model})
    with pytest.raises(ValueError, match="not a regular expression"):
        config(lr_scale={"a(": 2})


@pytest.mark.parametrize("name", MODELS)
def test_muon_is_for_the_matrices_of_layers(name: str) -> None:
    module = MODELS[name]()
    inside = {n for n, w in module.named_parameters() if w.dim() == 2 and IN_LAYER.search(n)}
    assert hidden_matrices(module) == inside and inside


def test_muon_steps_as_torchs_own_and_the_rest_as_adamw() -> None:
    """Each on its own copy of the model, over its own weights."""
    torch.manual_seed(0)
    ours, other = make_policy().model, make_policy().model
    gradients = [torch.randn_like(w) for w in ours.parameters()]
    train = config(optimizer="muon", weight_decay=0.1, adam_beta2=0.9)
    learner = learner_of(ours, make_optimizer("policy", ours, train))
    assert isinstance(learner.optimizer, Several)
    set_rate("policy", learner, 1e-2)
    named = dict(other.named_parameters())
    hidden = hidden_matrices(other)
    muon = torch.optim.Muon(
        [w for n, w in named.items() if n in hidden],
        lr=1e-2,
        weight_decay=0.1,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [
        {"params": [w for n, w in named.items() if n not in hidden and (n in decays(other)) == d]}
        | {"weight_decay": 0.1 if d else 0.0}
        for d in (True, False)
    ]
    adamw = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.9), fused=True)
    for _ in range(2):
        for model in (ours, other):
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight.grad = gradient.clone()
        learner.step()
        muon.step()
        adamw.step()
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adafactor_steps_by_the_given_rate() -> None:
    """The first update of a matrix with one gradient everywhere is the rate times its sign."""
    module = nn.Linear(3, 2, bias=False)
    optimizer = make_optimizer("policy", module, config(optimizer="adafactor"))
    set_rate("policy", learner_of(module, optimizer), 0.25)
    with torch.no_grad():
        module.weight.fill_(100.0)
    module.weight.grad = torch.full((2, 3), -5.0)
    optimizer.step()
    torch.testing.assert_close(module.weight.detach(), torch.full((2, 3), 100.25))


OPTIMIZERS = [
    "adamw",
    "muon",
    "adafactor",
    pytest.param("adamw_8bit", marks=pytest.mark.bitsandbytes),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_all_weights_and_goes_on_bit_for_bit(
    name: str, dtype: torch.dtype
) -> None:
    """With groups of several rates, whose order is not that of the model."""
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    train = config(optimizer=name, weight_decay=0.1, lr_scale={r"layers\.1": 0.5, "embed": 2})

    def make(weights: Any = None) -> Learner:
        # large enough for 8-bit moments, of which bitsandbytes makes smaller ones in float32
        model = make_policy(half=dtype == torch.bfloat16, intermediate_size=256).model
        if weights is not None:
            model.load_state_dict(weights)
        learner = learner_of(model, make_optimizer("policy", model, train))
        set_rate("policy", learner, 1e-2)
        return learner

    def step(learner: Learner, number: int) -> None:
        learner.zero_grad()
        draw = torch.Generator().manual_seed(number)
        for weight in learner.module.parameters():
            learner.backward((weight * torch.randn(weight.shape, generator=draw).to(dtype)).sum())
        assert math.isfinite(learner.clip(1e9))
        learner.step()

    first = make()
    start = copies(first)
    step(first, 1)
    assert all(not torch.equal(a, b) for a, b in zip(copies(first), start, strict=True))
    weights = {n: w.clone() for n, w in first.module.state_dict().items()}
    state = stored(first.state_dict())
    again = make(weights)
    again.load_state_dict(state)
    for learner in (first, again):
        step(learner, 2)
    assert all(torch.equal(a, b) for a, b in zip(copies(first), copies(again), strict=True))
    assert (len(first.masters) > 0) == (dtype == torch.bfloat16)


def copies(learner: Learner) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in learner.masters.trained]


def test_the_state_is_by_place_and_the_hyperparameters_are_the_configured_ones() -> None:
    """So that a run may go on with other groups (resume_force)."""
    torch.manual_seed(0)
    model = make_policy().model
    old = learner_of(model, make_optimizer("policy", model, config()))
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    old.step()
    train = config(weight_decay=0.3, adam_beta2=0.5, lr_scale={"norm": 2})
    new = learner_of(model, make_optimizer("policy", model, train))
    new.load_state_dict(stored(old.state_dict()))
    for weight in model.parameters():
        assert torch.equal(
            new.optimizer.state[weight]["exp_avg"], old.optimizer.state[weight]["exp_avg"]
        )
    assert {group["weight_decay"] for group in new.optimizer.param_groups} == {0.3, 0.0}
    assert {group["betas"] for group in new.optimizer.param_groups} == {(0.9, 0.5)}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_optimizer(config())
    with pytest.raises(UserError, match="pip install bitsandbytes, or use"):
        check_optimizer(config(optimizer="adamw_8bit"))


def test_groups_hold_the_chosen_weights_alone() -> None:
    model = make_policy().model
    chosen = {"lm_head.weight", "model.norm.weight"}
    groups = groups_of("policy", model, config(weight_decay=0.1), chosen)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1]
    assert groups[1]["params"][0] is model.lm_head.weight
