"""An environment that answers with what it was told, and a policy of the tiny model that chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import LlamaConfig, LlamaForCausalLM

from rlkit.interfaces import Environment, Observation, PartConfig, Start
from rlkit.models.policy import Policy
from tests.tiny import make_chat_tokenizer

ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(8)]


class EchoConfig(PartConfig):
    """Settings of the environment."""

    greets: bool = False
    """Whether it adds the row's answer to the prompt."""
    until: Annotated[int, Field(ge=0)] = 3
    """It ends an episode if 7 times the turn's number plus its characters is 0 modulo this; 0 =
    never."""
    size: Annotated[int, Field(ge=1)] = 4
    """Characters of what it says."""


class Echo(Environment[EchoConfig]):
    """Says the first characters of a turn again, and gives 0.25 for each turn."""

    call_format = "none"

    def __init__(self, config: EchoConfig | None = None) -> None:
        super().__init__(config)
        self.turns: dict[int, list[str]] = {}
        self.starts: dict[int, Start] = {}
        self.ended: list[int] = []

    @property
    def scores(self) -> bool:
        return True

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        self.turns |= {start.episode: [] for start in starts}
        self.starts |= {start.episode: start for start in starts}
        return [str(s.row["answer"]) if self.config.greets else None for s in starts]

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        return [self._one(episode, turn) for episode, turn in zip(episodes, turns, strict=True)]

    def _one(self, episode: int, turn: str) -> Observation:
        said = self.turns[episode]
        said.append(turn)
        until = self.config.until
        done = bool(until) and (7 * len(said) + len(turn)) % until == 0
        heard = "".join(c for c in turn if c.isdigit())[: self.config.size] or "0"
        return Observation(
            said={"role": "assistant", "content": turn},
            messages=[] if done else [{"role": "user", "content": heard}],
            done=done,
            counts={"calls": 1, "void_turns": int(heard == "0")},
        )

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        return [0.25 * len(self.turns[episode]) for episode in episodes]

    def end(self, episodes: Sequence[int]) -> None:
        self.ended += episodes


def chat_policy(seed: int = 0, temperature: float = 1.0, **settings: Any) -> Policy:
    """A random model whose turns end with the template's token, often after a few characters."""
    tokenizer = make_chat_tokenizer()
    tiny = {"hidden_size": 32, "intermediate_size": 32, "num_key_value_heads": 2}
    end: Any = tokenizer.convert_tokens_to_ids("<|end|>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                num_hidden_layers=2,
                num_attention_heads=2,
                pad_token_id=0,
                eos_token_id=[1, end],
                bos_token_id=None,
                initializer_range=0.2,
                **(tiny | settings),
            )
        )
    model.train(False)
    return Policy(model, tokenizer, temperature)
