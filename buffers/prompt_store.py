"""Single responses, kept by the prompts they answer."""

from __future__ import annotations

from collections import Counter

from buffers.storage import sample_from_state, sample_state
from rlkit.batch import Sample
from rlkit.interfaces import C, ReplayBuffer, State


class PromptStore(ReplayBuffer[C]):
    """Single responses, kept with the prompts they answer."""

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self.stored: dict[str, list[Sample]] = {}
        """Prompt id -> its responses, oldest first; written by `put` alone."""
        self.sizes: Counter[int] = Counter()
        """Number of responses -> how many prompts have as many."""

    def put(self, name: str, samples: list[Sample]) -> None:
        """Store these responses of a prompt in place of those it had; without any, it leaves."""
        if name in self.stored:
            self.sizes[len(self.stored[name])] -= 1
        if samples:
            self.sizes[len(samples)] += 1
            self.stored[name] = samples
        else:
            self.stored.pop(name, None)

    def clear(self) -> None:
        """Forget every response."""
        self.stored, self.sizes = {}, Counter()

    def __len__(self) -> int:
        return sum(size * prompts for size, prompts in self.sizes.items())

    def state_dict(self) -> State:
        """The stored responses."""
        return {"samples": [sample_state(s) for stored in self.stored.values() for s in stored]}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        found: dict[str, list[Sample]] = {}
        for sample in map(sample_from_state, state["samples"]):
            found.setdefault(sample.prompt_id, []).append(sample)
        for name, samples in found.items():
            self.put(name, samples)
