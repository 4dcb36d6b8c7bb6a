"""The page that `python -m rlkit.run --help` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlkit.composition.catalog_file import catalog
from rlkit.composition.config_files import default_choices, options
from rlkit.composition.show import print_settings
from rlkit.config.validation import as_written
from rlkit.plugins import LIST_KINDS

WIDTH = 96
GROUPS = {
    "algorithm": "the composition: a part of each kind, and settings that go with them",
    "loss": "what an update minimizes",
    "advantage": "how much better a response is than expected",
    "correction": "weights and masks of the loss's terms, applied in order",
    "buffer": "what a step trains on: fresh responses, replayed ones, demonstrations",
    "anchor": "the policies that training is held to",
    "schedule": "when a run is reborn, and which settings change then",
    "rollout": "the engine that generates responses",
    "task": "the prompts",
    "environment": "what answers the policy between its turns: tools, games",
    "reward": "what scores a response; with none, what the task says",
    "tracker": "where metrics go, besides the run's folder",
    "experiment": "a named set of overrides",
}
"""The groups in the order of the page, and what is chosen by each."""
INTRODUCTION = """\
Finetunes a language model by reinforcement learning. A run is composed of parts; what an argument
does not choose or set has a default.

usage: python -m rlkit.run [group=name ...] [key=value ...]        (the same: rlkit train ...)

  group=name         choose a part; a group of a list takes several: reward=[math,overlong]
  key=value          set a key of the run or of a chosen part: train.steps=50 loss.epsilon=0.1
  kind=FILE:Class    choose a part of your own: loss=./my_loss.py:MyLoss
  -m                 one run for each value: -m algorithm=grpo,remix seed=0,1,2
  --cfg job          print the configuration and stop; -p train prints one section of it
  --config-dir DIR   find algorithm=, +experiment= and variants of parts in DIR too
  --hydra-help       the options of Hydra, which reads the command line
"""
KEYS = """\
Keys of the run

The defaults are those for real models. The composition, the experiment and task=arithmetic have
some of their own: --cfg job prints what a run has.\
"""
FURTHER = """\
Examples

  python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex
  python -m rlkit.run algorithm=remix buffer.replay_fraction=0.2 train.steps=50 dry_run=true
  python -m rlkit.run algorithm=grpo model.name=./model task=jsonl task.path=data.jsonl
  python -m rlkit.run "anchor.beta={kind: cosine, start: 0.1, end: 0, steps: 50}"
  python -m rlkit.run loss=./my_loss.py:my_loss
  python -m rlkit.run algorithm=grpo output_dir=runs/mine resume=auto
  python -m rlkit.run +experiment=sft_remix_grpo

Where to look further

  rlkit list loss             the names of a group, one per line
  rlkit show loss remix       a part: equation, source, settings with defaults and bounds
  rlkit show algorithm remix  what a composition or an experiment chooses and sets
  rlkit --help                the other commands: doctor, check, eval, merge, report, view,
                              export, import, serve\
"""


def print_help(folders: Sequence[Path]) -> None:
    """Print how a run is started, what can be chosen of each group, and the run's own keys."""
    print(INTRODUCTION)
    print("Groups\n")
    chosen = default_choices()
    for group, about in GROUPS.items():
        default = as_written(chosen.get(group) or "none")
        print(f"  {_pattern(group)}  {about} (default: {default})")
        listed = ", ".join(options(group, folders))
        print(textwrap.fill(listed, WIDTH, initial_indent="      ", subsequent_indent="      "))
    print(f"\n{KEYS}\n")
    print_settings(catalog().run_settings)
    print(f"\n{FURTHER}")


def _pattern(group: str) -> str:
    """How an option of a group is chosen."""
    if group in LIST_KINDS:
        return f"{group}=[NAME,...]"
    return f"{'+' if group == 'experiment' else ''}{group}=NAME"
