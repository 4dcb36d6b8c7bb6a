"""The embedded model: a tiny causal LM that is weak at `task=arithmetic`.

`rlkit/models/embedded_calls.py` makes another one, for sums with a calculator.

It is trained from scratch on sloppy demonstrations of the running sums, which forget every other
carry. So it knows the facts and the format, but has a bad habit that reinforcement learning can
remove: correct sums are likely enough to be sampled, but too rare to be the norm.

Rounding differs between CPUs, and so do the weights trained on them. Those of seed 0 therefore ship
with rlkit (written by `benchmarks/make_embedded_base.py`); other seeds are trained once and cached.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlkit.config.cache import cache_home
from rlkit.errors import UserError
from rlkit.ops import stream_seed
from rlkit.tasks.arithmetic import EMBEDDED_OPERANDS, split

if TYPE_CHECKING:
    # Slow to import; runs that find the model in the cache do not need it.
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS = 0, 1
CHARACTERS = "0123456789+=,#"
ZERO, PLUS, EQUALS, COMMA, HASH = (2 + CHARACTERS.index(c) for c in "0+=,#")
SHIPPED = Path(__file__).with_name("embedded_base")
"""The folder of the model that ships with rlkit. Nothing writes to it."""
ORIGIN = SHIPPED / "origin.json"
"""What that model was made from (`Recipe.folder_name`), and the SHA-256 of its weights."""


@dataclass(frozen=True)
class Recipe:
    """Everything the model depends on besides the seed.

    Heads are 32 wide, the minimum that inference engines accept, and so together wider than the
    hidden state: with only two of them, some seeds learn the large sums too poorly to be improved.
    """

    version: int = 1
    operands: int = EMBEDDED_OPERANDS
    forget_carry: float = 0.5
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    head_size: int = 32
    mlp_size: int = 256
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 4e-3
    final_learning_rate: float = 4e-4
    warmup_steps: int = 20
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    def folder_name(self, seed: int) -> str:
        """A name that differs whenever the model would."""
        text = json.dumps([asdict(self), CHARACTERS], sort_keys=True)
        return f"embedded-{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}"

    def learning_rate_at(self, step: int) -> float:
        """At step 0, 1, ...: a linear rise, then a linear fall to `final_learning_rate`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
        return self.learning_rate + done * (self.final_learning_rate - self.learning_rate)


def embedded_model_dir(seed: int = 0, *, progress: bool = True) -> Path:
    """The `save_pretrained` folder of the embedded model and its tokenizer.

    Seed 0 ships with rlkit. Other seeds are trained on first use and kept under $RLKIT_CACHE, else
    $XDG_CACHE_HOME/rlkit, else ~/.cache/rlkit. Raises UserError if that cannot be written.

    $RLKIT_BASE_SHIFT, an integer, is added to the seed. It is only for tests, which must pass with
    any base.
    """
    seed += int(os.environ.get("RLKIT_BASE_SHIFT", "0"))
    recipe = Recipe()
    if recipe.folder_name(seed) == json.loads(ORIGIN.read_text())["made_from"]:
        return SHIPPED
    return _make_once(cache_home(), recipe, seed, progress)


def _make_once(home: Path, recipe: Recipe, seed: int, progress: bool) -> Path:
    def write(folder: Path) -> None:
        write_model(folder, recipe, seed, progress)

    return made_once(home / recipe.folder_name(seed), write, progress)


def made_once(folder: Path, write: Callable[[Path], None], progress: bool) -> Path:
    """The cached folder. It appears by one rename, so it is either complete or absent."""
    home = folder.parent
    if folder.is_dir():
        return folder
    unfinished = home / f".{folder.name}-{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"the embedded model cannot be saved in {home} ({error.strerror}); "
            "set RLKIT_CACHE to a writable folder"
        ) from None
    if progress:
        print(f"Making the embedded model, once, in {folder}")
    try:
        write(unfinished)
        _rename_unless_there(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def write_model(folder: Path, recipe: Recipe, seed: int, progress: bool) -> None:
    """Warm the model up, and save it and its tokenizer in the folder."""
    warm_up(recipe, seed, progress).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def _rename_unless_there(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def make_tokenizer(
    characters: str = CHARACTERS, unknown: str | None = None
) -> PreTrainedTokenizerFast:
    """One token per character, plus <pad> and <eos>; `unknown` stands for any other character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<eos>": EOS, **{c: i + 2 for i, c in enumerate(characters)}}
    raw = Tokenizer(models.WordLevel(vocabulary, **({"unk_token": unknown} if unknown else {})))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def make_model(recipe: Recipe, seed: int, characters: str = CHARACTERS) -> LlamaForCausalLM:
    """The untrained model. The global random state is left unchanged."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=2 + len(characters),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.mlp_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.head_size,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "embedded/init"))
        return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def demonstrations(
    problems: Tensor, count: int, forget_carry: float, generator: torch.Generator
) -> Tensor:
    """Sloppy solutions of randomly drawn problems, as token ids [count, 5K-3] for K operands.

    Each addition with a carry forgets it (is 10 too small) with probability `forget_carry`, and the
    next one continues from the wrong sum. `problems` is [N, K].
    """
    drawn = problems[torch.randint(len(problems), (count,), generator=generator)]  # [count, K]
    operands = drawn.shape[1]
    forgets = torch.rand(count, operands - 1, generator=generator) < forget_carry
    total, sums = drawn[:, 0], []
    for i in range(1, operands):
        carries = total % 10 + drawn[:, i] >= 10
        total = total + drawn[:, i] - 10 * (carries & forgets[:, i - 1])
        sums.append(total)
    written = torch.stack(sums, 1)  # [count, K-1]
    after_operand = torch.tensor([PLUS] * (operands - 1) + [EQUALS]).expand(count, -1)
    after_sum = torch.tensor([COMMA] * (operands - 3) + [HASH, EOS]).expand(count, -1)
    prompt = torch.stack((ZERO + drawn, after_operand), 2)  # [count, K, 2]
    answer = torch.stack(
        (ZERO + written // 10, ZERO + written % 10, after_sum), 2
    )  # [count, K-1, 3]
    return torch.cat((prompt.flatten(1), answer.flatten(1)), 1)


def stream(recipe: Recipe, seed: int) -> Iterator[Tensor]:
    """The batches of the warm-up, one per step, from training problems only."""
    problems = torch.tensor(split(recipe.operands)[0].problems)
    generator = torch.Generator().manual_seed(stream_seed(seed, "embedded/data"))
    for _ in range(recipe.steps):
        yield demonstrations(problems, recipe.batch, recipe.forget_carry, generator)


def warm_up(recipe: Recipe, seed: int, progress: bool) -> LlamaForCausalLM:
    """Train the model from scratch on the sloppy demonstrations, by cross-entropy of the response.

    It uses one thread, so that the weights do not depend on the number of threads.
    """
    prompt = 2 * recipe.operands

    def loss_of(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1], use_cache=False).logits[:, prompt - 1 :]
        return cross_entropy(logits.flatten(0, 1), tokens[:, prompt:].flatten())

    def losses() -> Iterator[Callable[[LlamaForCausalLM], Tensor]]:
        for tokens in stream(recipe, seed):
            yield partial(loss_of, tokens=tokens)

    model = make_model(recipe, seed)
    fit(model, recipe, losses(), progress)
    return model


def fit(
    model: LlamaForCausalLM,
    recipe: Recipe,
    losses: Iterable[Callable[[LlamaForCausalLM], Tensor]],
    progress: bool,
) -> None:
    """Take a step of AdamW for each loss, with one thread and the recipe's schedule."""
    from rich.progress import Progress
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    with _one_thread(), Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("Making the embedded model, once", total=recipe.steps)
        for step, loss in enumerate(losses):
            loss(model).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm, foreach=True)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
            optimizer.step()
            optimizer.zero_grad()
            bar.advance(task)
    model.train(False)


@contextmanager
def _one_thread() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
