"""What A-3PO saves: decoupled PPO with an interpolated prox beside one with a forward for it.

    python benchmarks/interpolated_prox.py

Two trainers of one process take turns, a step each, on the embedded model. Counted are the tokens
that pass through the model while a batch is prepared and updated, and the processor seconds of
that; the ratio is that of each pair of steps, and the median of the pairs is printed. A response of
the step's first minibatch costs no forward for prox in either form, since the update itself
computes its log-probs before the weights move.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.composition.compose import compose
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import store_groups
from rlkit.composition.session import RunScope, open_session
from rlkit.training.trainer import Trainer

CASES = {
    "one minibatch": ("train.minibatches=1",),
    "4 minibatches": ("train.minibatches=4",),
    "4 minibatches, weights synced every 4 steps": ("train.minibatches=4", "rollout.sync_every=4"),
}
FORMS = {"computed": "decoupled_ppo", "interpolated": "a3po"}
WARM_UP = 4
"""Steps of each that are not counted: the buffer fills."""


class Counted:
    """A trainer whose passes through the model are counted while it prepares and updates."""

    def __init__(self, form: str, folder: Path, overrides: tuple[str, ...]) -> None:
        chosen = [f"algorithm={FORMS[form]}", f"output_dir={folder}", *overrides]
        with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
            raw: Any = OmegaConf.to_container(hydra_compose("config", chosen), resolve=True)
        made = compose(raw)
        scope = RunScope.of(made)
        scope.folder.open(made.raw, [], {}, 0)
        self.trainer: Any = Trainer(open_session(made, scope))
        self.tokens, self.seconds, self.counts, self.done = 0, 0.0, False, 0
        model = self.trainer.session.policy.model
        model.register_forward_pre_hook(self._count, with_kwargs=True)
        for name in ("_prepare", "_update"):
            setattr(self.trainer, name, self._timed(getattr(self.trainer, name)))
        self.trainer.parts.anchor.rebase(self.trainer.session.policy)

    def _count(self, model: Any, args: Any, kwargs: Any) -> None:
        if self.counts:
            self.tokens += kwargs["input_ids"].numel()

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self.counts, started = True, time.process_time()
            try:
                return call(*arguments)
            finally:
                self.counts, self.seconds = False, self.seconds + time.process_time() - started

        return timed

    def step(self) -> tuple[float, float]:
        """Take a step; tokens through the model per trained response, and processor seconds."""
        self.tokens, self.seconds, self.done = 0, 0.0, self.done + 1
        before = self.trainer.count.trained
        self.trainer.state.advance(self.trainer._train_step(self.done))
        return self.tokens / (self.trainer.count.trained - before), self.seconds


def measured(overrides: tuple[str, ...], steps: int) -> str:
    """A row: tokens per response of either form, their ratio, and the median ratio of times."""
    with tempfile.TemporaryDirectory() as folder:
        pair = [Counted(form, Path(folder) / form, overrides) for form in FORMS]
        found = []
        for step in range(WARM_UP + steps):
            order = pair if step % 2 else pair[::-1]
            both = {id(each): each.step() for each in order}
            found.append([both[id(each)] for each in pair])
    kept = found[WARM_UP:]
    tokens = [statistics.mean(pairs[form][0] for pairs in kept) for form in (0, 1)]
    ratio = statistics.median(a[1] / b[1] for a, b in kept)
    return f"{tokens[0]:.1f} | {tokens[1]:.1f} | {tokens[0] / tokens[1]:.2f} | {ratio:.2f}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("overrides", nargs="*", help="settings of both runs")
    options = parser.parse_args()
    store_groups()
    print("| case | tokens per response, computed | interpolated | ratio | processor time ratio |")
    print("|---|---|---|---|---|")
    for name, overrides in CASES.items():
        row = measured((*overrides, *options.overrides), options.steps)
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
