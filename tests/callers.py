"""A tiny random model that calls tools, and what it calls: for runs through the command line."""

from __future__ import annotations

import json
import string
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.tiny import CHATML

CALLS = ("up", "down", "left", "right", "1", "2", "7", "1+1", "x=3", "x", "1/0")
"""Each is one token, behind the mark of a call, and ends a turn."""
FILE = '''
"""A tool, one that must not be called twice, and an environment."""

import time
from pathlib import Path


def double(number: str) -> str:
    """Doubles a number.

    Args:
        number: The number.
    """
    time.sleep(0.03)
    return str(2 * int(number))


def book(number: str) -> str:
    """Books a seat.

    Args:
        number: The seat.
    """
    time.sleep(0.03)
    return f"seat {int(number)}"


book.idempotent = False


class Counter:
    def reset(self, problem: int = 0, **row) -> str:
        self.counter, self.problem = 0, problem
        return f"reach {problem % 5}"

    def get_reward(self) -> float:
        return float(self.counter == self.problem % 5)

    async def add(self, number: str) -> int:
        """Adds to the counter.

        Args:
            number: How much.
        """
        time.sleep(0.01)
        self.counter += int(number)
        return self.counter


def talks(completions, **columns) -> list[float]:
    """A reward that differs from response to response."""
    return [float(sum(len(m["content"]) for m in c) % 7) for c in completions]
'''


@cache
def folder() -> Path:
    """`model/`, `own.py` with tools, an environment and a reward, and `rows.jsonl` for both."""
    made = Path(mkdtemp(prefix="rlkit-callers-"))
    (made / "own.py").write_text(FILE)
    rows = [
        {
            "prompt": f"go {i} ",
            "answer": "1",
            "problem": i,
            "environment": ("frozen_lake", "Counter")[i % 2],
        }
        for i in range(40)
    ]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _save_model(made / "model")
    return made


def _save_model(path: Path) -> None:
    signs = sorted(set(string.printable) - set("?|"))
    words = ["<pad>", "<eos>", *signs, *(f"?{call}" for call in CALLS)]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", chat_template=CHATML
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    end: Any = tokenizer.convert_tokens_to_ids("<|end|>")
    ends: list[int] = [1, end]
    ends += [words.index(f"?{call}") for call in CALLS]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                pad_token_id=0,
                eos_token_id=ends,
                bos_token_id=None,
                initializer_range=0.1,
            )
        )
    model.generation_config.eos_token_id = ends
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
