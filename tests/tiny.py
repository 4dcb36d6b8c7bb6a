"""A tiny random model with a character tokenizer, made in memory."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rlkit.batch import Prompt
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.models.policy import Policy

CHARACTERS = "0123456789+=,#"


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<eos>": 1, **{c: i + 2 for i, c in enumerate(CHARACTERS)}}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}:{{ m['content'] }}<|end|>,{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)
"""A template whose turns end with a token that is not the tokenizer's end of sequence."""


def make_chat_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the letters of roles, turns of a chat, and a template."""
    letters = "".join(sorted({*"systemuserassistant: "} - {*CHARACTERS}))
    words = ["<pad>", "<eos>", *CHARACTERS, *letters, "\n"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", chat_template=template
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    return tokenizer


def make_policy(
    seed: int = 0,
    temperature: float = 1.0,
    *,
    processes: Processes = SINGLE,
    half: bool = False,
    **settings: Any,
) -> Policy:
    """A random model, in bfloat16 if `half`; `settings` of its config may differ.

    As in a loaded model, only the weights are in bfloat16: rotary frequencies are not.
    """
    tiny = {
        "vocab_size": len(CHARACTERS) + 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=None,
                initializer_range=0.2,
                **(tiny | settings),
            )
        )
    model.train(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if half else torch.float32)
    return Policy(model, make_tokenizer(), temperature, processes=processes)


def make_dropping_model(p: float = 0.1, layers: int = 2) -> GPT2LMHeadModel:
    """A random model that drops everywhere in training mode: embeddings, attention, residuals."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(CHARACTERS) + 2,
                n_positions=32,
                n_embd=32,
                n_layer=layers,
                n_head=2,
                initializer_range=0.2,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=None,
                resid_pdrop=p,
                embd_pdrop=p,
                attn_pdrop=p,
            )
        )


def make_prompts(policy: Policy, texts: list[str]) -> list[Prompt]:
    return [
        Prompt(
            prompt_id=f"train-{i}",
            text_or_messages=text,
            ids=torch.tensor(policy.tokenizer(text)["input_ids"]),
            columns={"answer": text},
        )
        for i, text in enumerate(texts)
    ]
