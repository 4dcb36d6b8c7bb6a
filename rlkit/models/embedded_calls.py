"""The embedded model with a calculator: it cannot add large numbers, and seldom asks who can.

`environment=calculator` with the embedded model is about sums of three numbers with three digits.
The model is trained from scratch on sloppy demonstrations: most guess, some add two of the numbers
with the calculator and stop there, few hand it all of them, or the third one in a second call. So
it knows the format and has bad habits, and reinforcement learning makes it call the tool, wholly.

A call and what comes back, character by character, <eos> included:

    347+682+915=?347+682+915<eos>1944=#1944<eos>

An error comes back as "!", since the model reads no letters. As for the other embedded model, seed
0 ships with rlkit, and others are trained once and cached.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlkit.config.cache import cache_home
from rlkit.models import embedded
from rlkit.models.embedded import EOS, PAD, Recipe, fit, made_once, make_model
from rlkit.ops import stream_seed
from rlkit.tasks.arithmetic import CALLS_DIGITS, CALLS_OPERANDS, question, split

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

UNREADABLE = "!"
CHARACTERS = embedded.CHARACTERS + "?" + UNREADABLE
SHIPPED = Path(__file__).with_name("embedded_calls_base")
"""The folder of the model that ships with rlkit. Nothing writes to it."""
ORIGIN = SHIPPED / "origin.json"
"""What that model was made from (`CallsRecipe.folder_name`), and the SHA-256 of its weights."""
TEMPLATE = (
    "{#- compact calls: ?12+34 -#}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "{{- '!' if \"'error'\" in message.content else message.content -}}="
    "{%- else -%}{{- message.content -}}{%- endif -%}"
    "{%- if message.role == 'assistant' -%}"
    "{%- for call in message.tool_calls or [] -%}"
    "{%- for value in call.function.arguments.values() -%}?{{- value -}}{%- endfor -%}"
    "{%- endfor -%}<eos>"
    "{%- endif -%}"
    "{%- endfor -%}"
)
"""The chat template: texts as they are, a call behind "?", an answer before "="."""
Turns = tuple[str, ...]
"""Texts by turns: the prompt, what the model says, what it is told, what it says, ..."""


@dataclass(frozen=True)
class CallsRecipe(Recipe):
    """Everything the model depends on besides the seed."""

    operands: int = CALLS_OPERANDS
    digits: int = CALLS_DIGITS
    steps: int = 400
    guess: float = 0.55
    """Share of demonstrations without a call."""
    whole: float = 0.5
    """Share of first calls with all of the numbers."""
    second: float = 0.3
    """Share of those who asked for a part that ask again."""

    def folder_name(self, seed: int) -> str:
        """A name that differs whenever the model would."""
        text = json.dumps([asdict(self), CHARACTERS, TEMPLATE], sort_keys=True)
        return f"embedded-calls-{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}"


def calls_model_dir(seed: int = 0, *, progress: bool = True) -> Path:
    """The `save_pretrained` folder of the model and its tokenizer, as `embedded_model_dir`."""
    seed += int(os.environ.get("RLKIT_BASE_SHIFT", "0"))
    recipe = CallsRecipe()
    name = recipe.folder_name(seed)
    if name == json.loads(ORIGIN.read_text())["made_from"]:
        return SHIPPED

    def write(folder: Path) -> None:
        write_calls_model(folder, recipe, seed, progress)

    return made_once(cache_home() / name, write, progress)


def write_calls_model(folder: Path, recipe: CallsRecipe, seed: int, progress: bool) -> None:
    """Warm the model up, and save it and its tokenizer in the folder."""
    warm_up_calls(recipe, seed, progress).save_pretrained(folder)
    make_calls_tokenizer().save_pretrained(folder)


def make_calls_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, plus <pad> and <eos>, with a chat template; others are "!"."""
    tokenizer = embedded.make_tokenizer(CHARACTERS, UNREADABLE)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def demonstration(numbers: Sequence[int], draws: Sequence[float], recipe: CallsRecipe) -> Turns:
    """A sloppy solution by turns; `draws` are three numbers in [0, 1)."""
    total, *texts = (sum(numbers), *map(str, numbers))
    if draws[0] < recipe.guess:
        return question(numbers), f"#{total}"
    if draws[1] < recipe.whole:
        return question(numbers), "?" + "+".join(texts), f"{total}=", f"#{total}"
    part = sum(numbers[:-1])
    asked = question(numbers), "?" + "+".join(texts[:-1]), f"{part}="
    if draws[2] < recipe.second:
        return *asked, f"?{part}+{texts[-1]}", f"{total}=", f"#{total}"
    return *asked, f"#{part}"


def encoded(shown: Sequence[Turns]) -> tuple[Tensor, Tensor]:
    """Token ids, right-padded, and where they are the model's own: both [count, length]."""
    number = {character: i for i, character in enumerate(CHARACTERS, start=2)}
    rows, own = [], []
    for turns in shown:
        ids: list[int] = []
        mine: list[bool] = []
        for place, text in enumerate(turns):
            says = place % 2 == 1
            new = [number[character] for character in text] + [EOS] * says
            ids += new
            mine += [says] * len(new)
        rows.append(torch.tensor(ids))
        own.append(torch.tensor(mine))
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return padded, torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=False)


def calls_stream(recipe: CallsRecipe, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the warm-up, one per step, from training problems only."""
    problems = split(recipe.operands, recipe.digits)[0].problems
    generator = torch.Generator().manual_seed(stream_seed(seed, "embedded-calls/data"))
    for _ in range(recipe.steps):
        places = torch.randint(len(problems), (recipe.batch,), generator=generator).tolist()
        draws = torch.rand(recipe.batch, 3, generator=generator).tolist()
        rows = zip(places, draws, strict=True)
        yield encoded([demonstration(problems[i], each, recipe) for i, each in rows])


def warm_up_calls(recipe: CallsRecipe, seed: int, progress: bool) -> LlamaForCausalLM:
    """Train the model from scratch on the sloppy demonstrations, by cross-entropy of its turns."""

    def loss_of(model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, own = batch
        logits = model(tokens[:, :-1], use_cache=False).logits
        return cross_entropy(logits[own[:, 1:]], tokens[:, 1:][own[:, 1:]])

    model = make_model(recipe, seed, CHARACTERS)
    batches = calls_stream(recipe, seed)
    fit(model, recipe, (partial(loss_of, batch=batch) for batch in batches), progress)
    return model
