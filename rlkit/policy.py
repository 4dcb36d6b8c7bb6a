"""A causal language model that gives token log-probs, and frozen copies of it."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rlkit.adapter import (
    adapter_weights,
    add_adapter,
    has_adapter,
    is_off,
    load_adapter,
    plain_model,
    with_adapter,
)
from rlkit.batch import PolicyTerms, pad
from rlkit.config import ModelConfig
from rlkit.errors import UserError
from rlkit.interfaces import State
from rlkit.processes import ALONE, Processes, weights_of

if (
    TYPE_CHECKING
):  # transformers takes seconds to import, which a wrong configuration need not wait for
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EntropyMode = Literal["none", "value", "gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sequences as a model reads them: left-padded prompts and right-padded responses."""

    prompt_ids: Tensor
    """[B, P] int64, left-padded"""
    prompt_lengths: Tensor
    """[B] int64"""
    response_ids: Tensor
    """[B, T] int64, right-padded"""
    response_lengths: Tensor
    """[B] int64"""

    @staticmethod
    def of(prompts: list[Tensor], responses: list[Tensor]) -> Tokens:
        """Pad lists of [P_i] and [T_i] ids.

        Pad positions hold id 0 and are masked wherever they are read.
        """
        longest = max(p.shape[0] for p in prompts)
        flipped = pad([p.flip(0) for p in prompts], longest, 0)
        return Tokens(
            prompt_ids=flipped.flip(1),
            prompt_lengths=torch.tensor([p.shape[0] for p in prompts]),
            response_ids=pad(responses, max(1, *(r.shape[0] for r in responses)), 0),
            response_lengths=torch.tensor([r.shape[0] for r in responses]),
        )

    @property
    def lengths(self) -> Tensor:
        """[B] prompt plus response tokens."""
        return self.prompt_lengths + self.response_lengths

    def rows(self, index: Tensor) -> Tokens:
        """The sequences at `index`, trimmed to their longest prompt and response."""
        prompt_lengths, response_lengths = self.prompt_lengths[index], self.response_lengths[index]
        prompt, response = int(prompt_lengths.max()), max(1, int(response_lengths.max()))
        return Tokens(
            prompt_ids=self.prompt_ids[index][:, self.prompt_ids.shape[1] - prompt :],
            prompt_lengths=prompt_lengths,
            response_ids=self.response_ids[index][:, :response],
            response_lengths=response_lengths,
        )

    def model_inputs(self, device: torch.device) -> dict[str, Tensor]:
        """input_ids, attention_mask and position_ids [B, P + T], on the device."""
        prompt = (
            torch.arange(self.prompt_ids.shape[1])
            >= self.prompt_ids.shape[1] - self.prompt_lengths[:, None]
        )
        response = torch.arange(self.response_ids.shape[1]) < self.response_lengths[:, None]
        mask = torch.cat([prompt, response], 1).long()
        return {
            "input_ids": torch.cat([self.prompt_ids, self.response_ids], 1).to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
        }


def computing_in(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """Around forwards: matrix products in this type; None = in the weights' own."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def token_terms(
    model: PreTrainedModel,
    tokens: Tokens,
    temperature: float,
    entropy: EntropyMode,
    call: Callable[..., Any] | None = None,
    autocast: torch.dtype | None = None,
) -> PolicyTerms:
    """Log-prob and entropy (nats) of each response token [B, T] at a temperature.

    In float32; zeros where padded. `call` is what runs the model, if not itself.
    """
    inputs = {name: value[:, :-1] for name, value in tokens.model_inputs(model.device).items()}
    length = tokens.response_ids.shape[1]
    with computing_in(autocast, model.device):
        output = (call or model)(**inputs, use_cache=False, logits_to_keep=length)
    logits = output.logits[:, -length:].float()
    if temperature != 1.0:
        logits = logits / temperature
    ids = tokens.response_ids.to(logits.device)
    real = (
        torch.arange(length, device=logits.device)
        < tokens.response_lengths.to(logits.device)[:, None]
    )
    normaliser = logits.logsumexp(-1)
    logp = logits.gather(-1, ids[..., None]).squeeze(-1) - normaliser
    spread = torch.zeros_like(logp)
    if entropy != "none":
        with torch.set_grad_enabled(entropy == "gradient" and torch.is_grad_enabled()):
            spread = normaliser - ((logits - normaliser[..., None]).exp() * logits).sum(-1)
    return PolicyTerms(logp=torch.where(real, logp, 0.0), entropy=torch.where(real, spread, 0.0))


class FrozenPolicy:
    """A policy that no longer learns: an anchor's reference."""

    autocast: torch.dtype | None = None
    """That of the policy it was."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        self.model = model
        model.requires_grad_(False).train(False)
        self.temperature = temperature

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        return self._terms(tokens).logp

    def _terms(self, tokens: Tokens) -> PolicyTerms:
        return token_terms(self.model, tokens, self.temperature, "none", autocast=self.autocast)

    def state_dict(self) -> State:
        """Its weights by name."""
        return dict(self.model.state_dict())


class FrozenAdapter(FrozenPolicy):
    """The policy's model with adapters of its own: no second copy of the model.

    Adapters that add nothing, as at the beginning of a run, are switched off.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, weights: State) -> None:
        self.model, self.temperature, self.weights = model, temperature, weights

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token: [B, T] float32."""
        with with_adapter(self.model, None if is_off(self.weights) else self.weights):
            return self._terms(tokens).logp

    def state_dict(self) -> State:
        """The adapters' weights by name."""
        return dict(self.weights)


class Policy:
    """The model that learns, with its tokenizer."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.trained: nn.Module = model
        """What runs the model where gradients are wanted."""
        self.processes = ALONE
        self.autocast: torch.dtype | None = None
        """The type of matrix products, if not the weights' own."""

    @property
    def exact(self) -> bool:
        """Whether a forward gives the same in another batch, up to the rounding of float32."""
        return self.model.dtype == torch.float32 and self.autocast is None

    def computing(self) -> torch.autocast:
        """Around forwards of its model."""
        return computing_in(self.autocast, self.device)

    def share(self, processes: Processes) -> None:
        """Learn with other processes; called once."""
        self.processes = processes
        self.trained = processes.wrap(self.model)

    @contextmanager
    def whole(self) -> Generator[None]:
        """While it lasts, this process has all weights and may run the model on its own."""
        with self.processes.whole(self.model):
            yield

    def weights(self, *, kept: bool = True) -> State:
        """The weights by name, in one piece; copies where they are divided over processes.

        All processes take part; those that do not keep them get none.
        """
        if not self.processes.divides_weights:
            return dict(self.model.state_dict())
        with self.whole():
            whole = weights_of(self.model).items() if kept else ()
            return {name: tensor.cpu().clone() for name, tensor in whole}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def terms(self, tokens: Tokens, entropy: EntropyMode = "none") -> PolicyTerms:
        """Differentiable log-probs and entropies of the response tokens, [B, T]."""
        call = self.trained if torch.is_grad_enabled() else self.model
        return token_terms(self.model, tokens, self.temperature, entropy, call, self.autocast)

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """[B, T] float32, without gradient."""
        return self.terms(tokens).logp

    def freeze(self) -> FrozenPolicy:
        """A frozen copy of the policy as it is now; of a policy with adapters, the adapters'."""
        frozen = self._frozen()
        frozen.autocast = self.autocast
        return frozen

    def _frozen(self) -> FrozenPolicy:
        if has_adapter(self.model):
            return FrozenAdapter(self.model, self.temperature, adapter_weights(self.model))
        if self.processes.divides_weights:
            plain = plain_model(self.model, self.weights())
            torch.nn.Module.to(plain, self.device)
            return FrozenPolicy(plain, self.temperature)
        return FrozenPolicy(copy.deepcopy(self.model), self.temperature)

    def restore(self, state: State) -> FrozenPolicy:
        """A frozen policy with the given weights."""
        if has_adapter(self.model):
            frozen: FrozenPolicy = FrozenAdapter(self.model, self.temperature, state)
            frozen.autocast = self.autocast
            return frozen
        frozen = self.freeze()
        frozen.model.load_state_dict(state)
        return frozen


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises UserError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"model.device={name}, but this machine has no CUDA device; "
            "set model.device=cpu or auto"
        )
    index = torch.device(name).index or 0
    if name.startswith("cuda") and index >= torch.cuda.device_count():
        raise UserError(
            f"model.device={name}, but there are only {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)


def load_policy(
    config: ModelConfig, folder: str | Path, temperature: float, adapter: Path | None = None
) -> Policy:
    """The model and tokenizer of a Hugging Face name, a folder, or a `.gguf` file.

    A `.gguf` file may also be `pkg://package/file.gguf`. With model.lora.r the model gets adapters,
    those of the folder `adapter` if there is one.
    Raises UserError when it cannot be found.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = _resolve_package(str(folder))
    arguments: dict[str, Any] = {}
    if source.endswith(".gguf"):
        if not Path(source).is_file():
            raise UserError(f"model.name={config.name}: the file {source} does not exist")
        arguments["gguf_file"] = Path(source).name
        source = str(Path(source).parent)
    elif Path(source).is_dir() and not list(Path(source).glob("*config.json")):
        raise UserError(f"model.name={config.name} is no model folder: it has no config.json")
    device = resolve_device(config.device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **arguments)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attn_implementation,
            trust_remote_code=False,
            **arguments,
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.name={config.name} cannot be loaded: {reason}") from error
    if arguments:  # a de-quantised model refuses save_pretrained
        model = plain_model(model, model.state_dict())
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: its tokenizer has no end-of-sequence token")
    if config.lora.r > 0:
        model = load_adapter(model, adapter) if adapter else add_adapter(model, config.lora)
    placed: PreTrainedModel = model
    torch.nn.Module.to(placed, device)
    placed.train(
        config.gradient_checkpointing
    )  # transformers checkpoints activations in training mode only
    if config.gradient_checkpointing:
        placed.gradient_checkpointing_enable()
    policy = Policy(placed, tokenizer, temperature)
    policy.autocast = getattr(torch, config.autocast) if config.autocast else None
    return policy


def _resolve_package(name: str) -> str:
    if not name.startswith("pkg://"):
        return name
    package, _, inner = name.removeprefix("pkg://").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"model.name={name}: the Python package '{package}' is not installed")
    return str(Path(spec.submodule_search_locations[0]) / inner)
