"""The training prompts in the order in which they are taken."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor, tensor
from torch import int64 as INT64

from rlkit.batch import Group, Prompt
from rlkit.config.prompts import PromptsConfig
from rlkit.errors import UserError
from rlkit.interfaces import TASK, State
from rlkit.ops import stream_rng
from rlkit.rewards.judges import FULL_MARKS, Judges
from rlkit.tasks.identity import fingerprint
from rlkit.tasks.orders import ORDERS, Shuffled
from rlkit.tasks.pass_rates import PassRates, known_rates
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.shares import turns

WHOLE = ""
"""The name of a task that is no mix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How prompts are chosen."""

    config: PromptsConfig = field(default_factory=PromptsConfig)
    shares: Mapping[str, float] = field(default_factory=dict)
    """The weight of each task of a mix; none if there is but one task."""
    judges: Judges = field(default_factory=lambda: Judges(""))
    """By which rewards a response is right, for pass rates."""

    def right(self, group: Group) -> list[bool]:
        """Which of the policy's own responses are right, of those that the reward applies to."""
        judge = self.judges.of(group.prompt.columns)
        own = (sample for sample in group.samples if sample.source == "policy")
        return [s.rewards[judge] >= FULL_MARKS for s in own if judge in s.rewards]


class PromptStream:
    """The training prompts. A buffer's `plan` takes from it.

    What comes when depends on the seed and the position, and on pass rates if the choice reads
    them. The tasks of a mix take turns; each goes through its own prompts, and begins again when it
    is through, whatever the others do.
    """

    def __init__(
        self,
        prompts: Prompts,
        seed: int,
        num_generations: int,
        max_completion_length: int,
        max_prompt_length: int = sys.maxsize,
        choice: Choice | None = None,
    ) -> None:
        self.prompts = prompts
        self.seed = seed
        self.num_generations = num_generations
        self.max_completion_length = max_completion_length
        self.max_prompt_length = max_prompt_length
        self.choice = choice or Choice()
        self.position = 0
        self.returned: list[Prompt] = []
        """Prompts that were taken and not asked; they come first."""
        self._epoch = -1
        self._turns: list[int] = []
        config = self.choice.config
        self.rates = (
            PassRates(
                prompts.ids, known_rates(prompts.rows, config.pass_rate_column), config.forget
            )
            if config.reads_pass_rates
            else None
        )
        self.weights = {name: weight for name, weight in self.choice.shares.items() if weight > 0}
        self.orders = self._orders()

    def _orders(self) -> dict[str, Shuffled]:
        """The order of each task's prompts."""
        kind, config = ORDERS[self.choice.config.order], self.choice.config
        if not self.weights:
            draw = partial(stream_rng, self.seed, "data")
            return {WHOLE: kind(np.arange(len(self.prompts)), draw, config, self.rates)}
        places: dict[str, list[int]] = {name: [] for name in self.weights}
        for place, row in enumerate(self.prompts.rows):
            places[row[TASK]].append(place)
        for name, found in places.items():
            if not found:
                raise UserError(f"task.parts.{name} has no training problem that is short enough")
        return {
            name: kind(
                np.array(found), partial(stream_rng, self.seed, f"data/{name}"), config, self.rates
            )
            for name, found in places.items()
        }

    def take(self, n: int) -> list[Prompt]:
        """The next n prompts, those that were given back first."""
        back, self.returned = self.returned[:n], self.returned[n:]
        whose = self._whose(n - len(back))
        found = {name: iter(each.take(whose.count(name))) for name, each in self.orders.items()}
        return back + [self.prompts[next(found[name])] for name in whose]

    def give_back(self, prompts: Sequence[Prompt]) -> None:
        """Take back prompts that were not asked after all, so that no epoch is without them."""
        self.returned += prompts

    def _whose(self, n: int) -> list[str]:
        """Which tasks the next n prompts are of."""
        names, out = list(self.orders), []
        for place in range(self.position, self.position + n):
            epoch, offset = divmod(place, len(self.prompts))
            if len(names) > 1 and epoch != self._epoch:
                rng = stream_rng(self.seed, "data/turns", epoch)
                self._turns = turns(list(self.weights.values()), len(self.prompts), rng)
                self._epoch = epoch
            out.append(names[self._turns[offset]] if len(names) > 1 else names[0])
        self.position += n
        return out

    def observe(self, fresh: Sequence[Group]) -> None:
        """Take in which responses of a step were right; called once per training step."""
        if self.rates is not None:
            self.rates.observe(fresh, self.prompts.places, self.choice.right)

    def stats(self) -> dict[str, float]:
        """How often each task of a mix was gone through, and what is known of pass rates."""
        out: dict[str, float] = {
            f"{name}_epochs": order.epochs for name, order in self.orders.items() if name
        }
        if self.rates is not None:
            seen = self.rates.seen
            out["seen"] = float(seen.mean())
            out["left_out"] = float(sum(len(order.solved()) for order in self.orders.values()))
            if seen.any():
                out["pass_rate"] = float(self.rates.mean[seen].mean())
        return out

    def get(self, prompt_id: str) -> Prompt:
        """A prompt by its id. Raises UserError if it is not in this set."""
        if prompt_id not in self.prompts.places:
            raise UserError(
                f"the run holds responses to the prompt {prompt_id}, which is not in the task's "
                "data any more; restore the data, or begin a run of its own"
            )
        prompt: Prompt = self.prompts[self.prompts.places[prompt_id]]
        return prompt

    def prompt(self, prompt_id: str, row: Mapping[str, object]) -> Prompt:
        """A row encoded as the task's own are."""
        return self.prompts.encoded(prompt_id, row)

    def response(self, text: str) -> Tensor:
        """The token ids of a text as a response, with the token that ends the turn."""
        return tensor(self.prompts.encoder.response(text), dtype=INT64)

    def state_dict(self) -> State:
        """The position, that of each task, the pass rates, and what tells the data from others."""
        return {
            "position": self.position,
            "data": self.data,
            "returned": [prompt.prompt_id for prompt in self.returned],
            "orders": {name: order.state_dict() for name, order in self.orders.items()},
            "rates": self.rates.state_dict() if self.rates is not None else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a saved position."""
        self.position, self._epoch = state["position"], -1
        self.returned = [self.get(name) for name in state.get("returned", ())]
        for name, order in self.orders.items():
            order.load_state_dict(state["orders"][name])
        if self.rates is not None and state["rates"]:
            self.rates.load_state_dict(state["rates"], self.prompts.places)

    @property
    def data(self) -> State:
        """What tells these prompts, in their order, from others."""
        return fingerprint(self.prompts.ids)
