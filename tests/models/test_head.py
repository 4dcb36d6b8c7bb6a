"""Log-probs from an output layer's inputs are those of its full logits, in any architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlkit.config.run import LoraConfig
from rlkit.interfaces import Tokens
from rlkit.models import logprob
from rlkit.models.head import Head, Wanted
from rlkit.models.logits import EntropyMode
from rlkit.models.lora import add_adapter
from rlkit.models.policy import Policy
from rlkit.models.recompute import checkpoint_layers
from rlkit.models.tokens import terms_at
from tests.models.test_logprob import Watched, distance
from tests.tiny import make_dropping_model, make_policy, make_tokenizer

VOCABULARY = 16
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
TOKENS = Tokens.of(
    [torch.tensor([3, 4, 5]), torch.tensor([3]), torch.tensor([7, 2])],
    [torch.tensor([5, 6, 7, 1]), torch.tensor([8, 1]), torch.tensor([4])],
)
PLAIN = Head(1.0, None)


def adapted(dropout: float = 0.0, **fields: Any) -> Any:
    """A model with an adapter on its output layer that has learned something."""
    made = make_policy(tie_word_embeddings=False).model
    settings = LoraConfig(r=2, alpha=6, dropout=dropout, target_modules=("lm_head", "q_proj"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = add_adapter(made, settings)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
    return model.train(False)


def seeded(cls: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(config).train(False)


def gpt2(*, bias: bool) -> Any:
    model = make_dropping_model().train(False)
    if bias:
        model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    return model


def model_of(name: str) -> Any:
    match name:
        case "llama":
            return make_policy(tie_word_embeddings=False).model
        case "llama, tied":
            return make_policy(tie_word_embeddings=True).model
        case "gemma2":
            return seeded(Gemma2ForCausalLM, Gemma2Config(**SIZES, final_logit_softcapping=2.0))
        case "cohere":
            return seeded(CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.25))
        case "granite":
            return seeded(GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=3.0))
        case "gpt2":
            return gpt2(bias=False)
        case "gpt2 with a bias":
            return gpt2(bias=True)
        case _:
            return adapted()


HEADS = {
    "llama": PLAIN,
    "llama, tied": PLAIN,
    "gemma2": Head(1.0, 2.0),
    "cohere": Head(0.25, None),
    "granite": Head(1 / 3, None),
    "gpt2": PLAIN,
    "gpt2 with a bias": PLAIN,
    "lora": PLAIN,
}


def policies(model: Any, temperature: float = 0.8) -> tuple[Policy, Policy]:
    """Without and with the model's head."""
    plain = Policy(model, make_tokenizer(), temperature)
    fused = copy.copy(plain)
    fused.head = Head.of(model)
    assert fused.head is not None
    return plain, fused


def measured(policy: Policy, entropy: EntropyMode) -> list[Tensor]:
    """Terms, and the gradient of every trained weight."""
    terms = policy.terms(TOKENS, entropy)
    weights = torch.linspace(-1, 2, terms.logp.numel()).view_as(terms.logp)
    loss = (weights * (terms.logp + (terms.entropy if entropy == "gradient" else 0))).sum()
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    return [terms.logp.detach(), terms.entropy.detach(), *torch.autograd.grad(loss, trained)]


def same(found: list[Tensor], expected: list[Tensor], bound: float = 2e-6) -> bool:
    return max(distance(a, b) for a, b in zip(found, expected, strict=True)) < bound


@pytest.mark.parametrize("name", HEADS)
def test_the_head_of_an_architecture_is_found(name: str) -> None:
    found, expected = Head.of(model_of(name)), HEADS[name]
    assert found is not None
    assert found.scale == pytest.approx(expected.scale, rel=1e-11)
    assert found.softcap == expected.softcap


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("entropy", ["value", "gradient"])
def test_values_and_gradients_are_those_of_full_logits(name: str, entropy: EntropyMode) -> None:
    """Tied weights get the embedding's share too. Layers in float64, so that they do not round."""
    model = model_of(name).double()
    plain, fused = policies(model)
    expected, found = measured(plain, entropy), measured(fused, entropy)
    assert expected[0].abs().min() == 0 < expected[0].abs().max(), "padding is zero"
    assert same(found, expected)


@pytest.mark.parametrize("name", HEADS)
def test_float32_differs_by_rounding_alone(name: str) -> None:
    plain, fused = policies(model_of(name))
    assert same([fused.logp(TOKENS)], [plain.logp(TOKENS)])


def test_a_frozen_copy_uses_the_head() -> None:
    _, fused = policies(model_of("gemma2"))
    frozen = fused.freeze()
    found = frozen.logp(TOKENS)
    assert frozen.reading.head == fused.head == fused.at(0.5).head
    with torch.no_grad():
        fused.model.lm_head.weight.zero_()
    assert torch.equal(frozen.logp(TOKENS), found), "the copy reads its own weights"
    assert same([found], [policies(model_of("gemma2"))[0].logp(TOKENS)])


def test_no_tensor_is_as_large_as_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 tokens and 600 words; the largest that may be is the embedding's gradient."""
    monkeypatch.setattr(logprob, "CHUNK_BYTES_CPU", 4 * 1000)
    plain, fused = policies(
        seeded(LlamaForCausalLM, LlamaConfig(**SIZES | {"vocab_size": 600, "hidden_size": 8}))
    )
    positions, count = torch.arange(12), 12
    wanted = Wanted(positions=positions, ids=positions, last=6)
    inputs = {"input_ids": torch.arange(12).view(2, 6)}
    sizes = []
    for head in (plain.head, fused.head):
        with Watched() as watched:
            terms_at(plain.model, inputs, wanted, head=head).logp.sum().backward()
        sizes.append(watched.largest)
    assert sizes[0] >= count * 600 > 600 * 8 >= sizes[1]


@pytest.mark.parametrize("fused", [False, True], ids=["full logits", "head"])
def test_positions_may_be_any_and_repeat(*, fused: bool) -> None:
    model = model_of("cohere").double()
    head = Head.of(model) if fused else None
    ids = torch.randint(VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
    logp = (model(input_ids=ids).logits / 0.5).log_softmax(-1).flatten(0, 1)  # [12, V]
    wanted = Wanted(
        positions=torch.tensor([5, 0, 5, 11, 5]),
        ids=torch.tensor([1, 2, 3, 4, 1]),
        last=6,
        temperature=0.5,
        entropy="value",
    )
    terms = terms_at(model, {"input_ids": ids}, wanted, head=head)
    expected = logp[wanted.positions, wanted.ids]
    torch.testing.assert_close(terms.logp, expected, check_dtype=False, rtol=1e-6, atol=1e-6)
    entropy = -(logp.exp() * logp).sum(-1)[wanted.positions]
    torch.testing.assert_close(terms.entropy, entropy, check_dtype=False, rtol=1e-6, atol=1e-6)
    grads = [
        torch.autograd.grad(x.sum(), model.lm_head.weight)[0]
        for x in (terms.logp, logp[wanted.positions, wanted.ids])
    ]
    assert distance(*grads) < 1e-6
    nothing = Wanted(positions=torch.arange(0), ids=torch.arange(0), last=6)
    terms_at(model, {"input_ids": ids}, nothing, head=head).logp.sum().backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_the_gradient_comes_through_the_output_first() -> None:
    """There FSDP learns that weights are needed again, before the output layer uses them."""
    model: Any = model_of("llama")
    order: list[str] = []

    def call(**inputs: Any) -> Any:
        output = model(**inputs)
        output.logits.register_hook(lambda _: order.append("output"))
        return output

    model.lm_head.weight.register_hook(lambda _: order.append("weight"))
    wanted = Wanted(positions=torch.tensor([0]), ids=torch.tensor([4]), last=2)
    terms_at(model, {"input_ids": torch.tensor([[3, 4]])}, wanted, call, PLAIN).logp.backward()
    assert order == ["output", "weight"]


def test_under_autocast_only_factors_are_rounded() -> None:
    """The layers before round as ever; the logits are nearer to the exact ones of these inputs."""
    plain, fused = policies(model_of("llama"))
    exact = plain.logp(TOKENS)
    plain.autocast = fused.autocast = torch.bfloat16
    assert 0 < (plain.logp(TOKENS) - exact).abs().max() < 0.2
    assert 0 < (fused.logp(TOKENS) - exact).abs().max() < 0.2
    halves = measured(fused, "gradient")
    assert {x.dtype for x in halves} == {torch.float32}
    assert not torch.equal(halves[0], plain.logp(TOKENS))


def test_checkpointed_layers_give_the_same_gradients() -> None:
    plain, fused = policies(model_of("llama"))
    expected = measured(fused, "gradient")
    checkpoint_layers(fused.model, on=True)
    found = measured(fused, "gradient")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert same(found, measured(plain, "gradient"), 1e-5)


def test_packed_sequences_use_it_too() -> None:
    plain, fused = policies(model_of("gemma2"))
    expected = measured(plain, "gradient")
    fused.layout = "packed"
    assert same(measured(fused, "gradient"), expected, 1e-5)


def test_an_adapter_that_is_switched_off_adds_nothing() -> None:
    model = model_of("lora")
    plain, fused = policies(model)
    on = fused.logp(TOKENS)
    with model.disable_adapter():
        off = fused.logp(TOKENS)
        assert same([off], [plain.logp(TOKENS)])
    assert (on - off).abs().max() > 0.1
    model.merge_adapter()
    assert same([fused.logp(TOKENS)], [on])


def test_an_adapter_on_the_head_drops_as_it_would() -> None:
    model = adapted(dropout=0.5)
    plain, fused = policies(model)
    for part in model.modules():
        part.training = isinstance(part, nn.Dropout)
    found = []
    for policy in (plain, fused):
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(policy.model.lm_head.lora_dropout["default"](torch.ones(4)))
            found.append(policy.logp(TOKENS))
    assert torch.equal(found[0], found[2])
    assert (found[1] - found[3]).isfinite().all()
    model.train(False)
    assert not same([plain.logp(TOKENS)], [found[3]], 1e-3), "nothing was dropped"


def test_a_head_that_is_trained_whole_beside_adapters() -> None:
    from peft import LoraConfig as Config
    from peft import get_peft_model

    made = make_policy(tie_word_embeddings=False).model
    settings = Config(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = get_peft_model(made, settings).train(False).double()
    own = model.get_output_embeddings().modules_to_save["default"].weight
    with torch.no_grad():
        own.mul_(2)
    plain, fused = policies(model)
    assert same(measured(fused, "gradient"), measured(plain, "gradient"))
    assert own.requires_grad
    with model.disable_adapter():
        assert same([fused.logp(TOKENS)], [plain.logp(TOKENS)])


class Half(nn.Linear):
    """A layer with a forward of its own, as a quantized one."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) / 2


class Shifted(nn.Module):
    """Makes something of the logits that no formula here says."""

    def __init__(self, model: Any, change: Any) -> None:
        super().__init__()
        self.inner, self.change, self.device = model, change, model.device

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = self.change(output.logits)
        return output


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z + 1,
        lambda z: z.relu(),
        lambda z: z[..., :-1],
        lambda z: -z,
        lambda z: z.masked_fill(torch.arange(z.shape[-1]) == 3, -1e9),
        lambda z: z.clamp(-20, 20),
    ],
    ids=["shift", "relu", "cut", "sign", "mask", "clamp"],
)
def test_an_unknown_use_of_the_logits_has_no_head(change: Any) -> None:
    model: Any = model_of("llama")
    assert Head.of(Shifted(model, lambda z: 2 * z)) == Head(2.0, None)
    assert Head.of(Shifted(model, change)) is None


def test_a_layer_that_is_not_plainly_linear_has_no_head() -> None:
    model = model_of("llama")
    layer = model.lm_head
    model.lm_head = Half(layer.in_features, layer.out_features, bias=False)
    assert Head.of(model) is None
    model.lm_head = nn.Sequential(layer)
    assert Head.of(model) is None
    model.set_output_embeddings(None)
    assert Head.of(model) is None


def test_the_layer_is_itself_again_also_after_an_error() -> None:
    model: Any = model_of("llama")
    wanted = Wanted(positions=torch.tensor([0]), ids=torch.tensor([VOCABULARY + 5]), last=1)
    with pytest.raises((RuntimeError, IndexError)), PLAIN.computing(model, wanted):
        raise RuntimeError("a forward failed")
    assert "forward" not in vars(model.lm_head)
    assert model(torch.tensor([[3, 4]])).logits.shape == (1, 2, VOCABULARY)
