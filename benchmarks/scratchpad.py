"""Testbed 2: five-digit sums column by column, for a model that forgets carries and seldom checks.

    python benchmarks/scratchpad.py --out runs/scratchpad

Writes the base model (0.4 M parameters, trained here on sloppy demonstrations: minutes on one core)
and three files of problems: train.jsonl, validation.jsonl for tuning, test.jsonl for reporting. The
folder appears complete or not at all, and is left alone once it is there.

A response adds up the columns from the right, each as digit + digit + carry, then gives the digits
of the sum from the right after '#':

    45678+56789=
    a8+9+0=17;b8+7+1=16;?7+8+1=16;c6+7+1=14;d5+6+1=12;e4+5+1=10;#764201

Either digit may come first. A column may be checked ('?': computed once more; the check counts). In
the demonstrations a carry is forgotten with probability `forget`, and with `forget_in_check` in a
check. A problem has at least three carries into a column, so that a response is rarely right.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench import status_of
from torch.nn.functional import cross_entropy

from rlkit.errors import UserError
from rlkit.tasks.split import unit_hash

DIGITS = 5
CARRIES = 3
"""At least so many of the four columns that can receive a carry receive one."""
COLUMNS = "abcde"
PAD, EOS = 0, 1
CHARACTERS = "0123456789+=;?#" + COLUMNS
PROMPT = 2 * DIGITS + 2
SHARE = 1 / 16
"""Of all problems that are test problems, and of those that are validation problems."""
SIZES = {"train": 20_000, "validation": 512, "test": 1024}
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Everything the base depends on."""

    seed: int = 0
    forget: float = 0.6
    check: float = 0.2
    forget_in_check: float = 0.2
    hidden_size: int = 96
    layers: int = 3
    heads: int = 3
    mlp_size: int = 384
    steps: int = 900
    batch: int = 32
    learning_rate: float = 3e-3
    warmup_steps: int = 50


def question(first: int, second: int) -> str:
    """The prompt."""
    return f"{first}+{second}="


def digits(number: int) -> list[int]:
    """Those of a number from the right."""
    return [int(digit) for digit in reversed(str(number))]


def carries(first: int, second: int) -> int:
    """How many columns receive a carry, of those the numbers have digits in."""
    carry, count = 0, 0
    for a, b in zip(digits(first), digits(second), strict=True):
        count += carry
        carry = int(a + b + carry >= 10)
    return count


def answer(first: int, second: int) -> str:
    """The digits of the sum from the right, six of them."""
    return f"{first + second:0{DIGITS + 1}d}"[::-1]


def problems(split: str, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Problems of a split without end, some more than once."""
    low, high = {"test": (0, SHARE), "validation": (SHARE, 2 * SHARE), "train": (2 * SHARE, 1)}[
        split
    ]
    while True:
        pair = (
            draw.randrange(10 ** (DIGITS - 1), 10**DIGITS),
            draw.randrange(10 ** (DIGITS - 1), 10**DIGITS),
        )
        if carries(*pair) >= CARRIES and low <= unit_hash(question(*pair)) < high:
            yield pair


def demonstration(first: int, second: int, recipe: Recipe, draw: random.Random) -> str:
    """A sloppy solution: carries are forgotten, digits come in either order, some are checked."""
    carry, steps, result = 0, "", ""
    for name, *pair in zip(COLUMNS, digits(first), digits(second), strict=True):
        tries = [(name, recipe.forget)]
        tries += [("?", recipe.forget_in_check)] if draw.random() < recipe.check else []
        for mark, forget in tries:
            draw.shuffle(pair)
            kept = 0 if draw.random() < forget else carry
            total = sum(pair) + kept
            steps += f"{mark}{pair[0]}+{pair[1]}+{kept}={total:02d};"
        carry = total // 10
        result += str(total % 10)
    return f"{steps}#{result}{carry}"


def tokens_of(text: str) -> list[int]:
    """One for each character."""
    return [CHARACTERS.index(character) + 2 for character in text]


def batch_of(
    recipe: Recipe, source: Iterator[tuple[int, int]], draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, T] of prompts and demonstrations, and what is to be predicted [B, T - PROMPT]."""
    rows = []
    for _ in range(recipe.batch):
        pair = next(source)
        rows.append([*tokens_of(question(*pair) + demonstration(*pair, recipe, draw)), EOS])
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    real = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
    return tokens, tokens.masked_fill(~real, IGNORED)[:, PROMPT:]


def tokenizer() -> object:
    """One token per character, plus <pad> and <eos>."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<eos>": EOS, **{c: i + 2 for i, c in enumerate(CHARACTERS)}}
    raw = Tokenizer(models.WordLevel(vocabulary))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def base_model(recipe: Recipe, every: int) -> torch.nn.Module:
    """The model, trained from scratch by cross-entropy of the demonstrations."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=2 + len(CHARACTERS),
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.mlp_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=EOS,
            dtype="float32",
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    draw = random.Random(f"scratchpad/{recipe.seed}")
    source = problems("train", draw)
    for step in range(1, recipe.steps + 1):
        tokens, wanted = batch_of(recipe, source, draw)
        logits = model(tokens[:, :-1], use_cache=False).logits[:, PROMPT - 1 :]
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rising = step / recipe.warmup_steps
        falling = 1 - 0.95 * (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(rising, falling)
        optimizer.step()
        optimizer.zero_grad()
        if step % every == 0:
            print(f"step {step}/{recipe.steps}  loss {loss.item():.4f}", flush=True)
    return model


def rows_of(split: str) -> list[dict[str, str]]:
    """The problems of a split, each once; the same whatever the recipe."""
    source = problems(split, random.Random(f"scratchpad/{split}"))
    found: dict[str, str] = {}
    while len(found) < SIZES[split]:
        pair = next(source)
        found[question(*pair)] = answer(*pair)
    return [{"prompt": prompt, "answer": right} for prompt, right in found.items()]


def write(folder: Path, recipe: Recipe, every: int) -> None:
    """The problems, the model and its recipe."""
    for split in SIZES:
        text = "".join(json.dumps(row) + "\n" for row in rows_of(split))
        (folder / f"{split}.jsonl").write_text(text)
    base_model(recipe, every).save_pretrained(folder / "base")  # type: ignore[operator]
    tokenizer().save_pretrained(folder / "base")  # type: ignore[attr-defined]
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def make(folder: Path, recipe: Recipe, every: int = 100) -> None:
    """Write the folder unless it is there. Raises UserError if it has another recipe."""
    if folder.is_dir():
        if json.loads((folder / "recipe.json").read_text()) != asdict(recipe):
            raise UserError(f"{folder} has another recipe; name another folder")
        return
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    torch.set_num_threads(1)
    write(unfinished, recipe, every)
    unfinished.rename(folder)


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--out", type=Path, default=Path("runs/scratchpad"))
    for name, value in asdict(Recipe()).items():
        out.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the testbed."""
    options = vars(parser().parse_args(arguments))
    return status_of(lambda: make(options.pop("out"), Recipe(**options)))


if __name__ == "__main__":
    sys.exit(main())
