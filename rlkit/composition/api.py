"""`rlkit.train`: a run from Python, with models, data sets and functions in memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict
from transformers.utils import logging as transformers

from rlkit.composition.compose import compose
from rlkit.composition.config_files import configs_folder
from rlkit.composition.error_messages import MAPPED, one_line
from rlkit.composition.evaluate import evaluated
from rlkit.composition.execute import execute
from rlkit.composition.hydra_groups import import_before_compose, run_label
from rlkit.composition.inputs import Inputs, RewardLike
from rlkit.composition.saved import same_problems, saved_config
from rlkit.composition.session import close
from rlkit.composition.stages import stage_configs
from rlkit.config.overrides import quoted
from rlkit.distributed.launch import open_processes
from rlkit.errors import UserError
from rlkit.registry import scoped
from rlkit.runs.checkpoint import list_checkpoints
from rlkit.runs.completion_files import completion_file, read_completions
from rlkit.runs.generators import load_rng_state, rng_state
from rlkit.runs.stopping import Stopped


class Metrics(list[dict[str, float]]):
    """The lines of a run's metrics.jsonl: one dict per training step and per evaluation."""

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row per line. Raises UserError if pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UserError(
                "to_pandas needs the package pandas, which is not installed: pip install pandas"
            ) from error
        return pandas.DataFrame(self)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run that `train` began, continued or finished, read from its run folder."""

    path: Path
    """The run folder."""
    finished: bool
    """Whether it reached its last step; otherwise it was asked to stop, and `train` with
    resume="auto" continues it."""
    arguments: tuple[str, ...] = field(repr=False)
    inputs: Inputs = field(repr=False)

    @property
    def metrics(self) -> Metrics:
        """One dict per training step and per evaluation, as in metrics.jsonl."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return Metrics(json.loads(line) for line in lines)

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint: a `save_pretrained` folder."""
        return list_checkpoints(self.path)[-1]

    def completions(self, step: int) -> list[dict[str, Any]]:
        """The responses step `step` trained on. Raises UserError if there is no such step."""
        file = completion_file(self.path, step)
        if not file.is_file():
            raise UserError(f"{self.path} has no completions of step {step}")
        return read_completions(file)

    def evaluate(self, *overrides: str) -> dict[str, float]:
        """Evaluate the newest checkpoint on the run's task, or as the overrides say."""
        named = Inputs(
            dataset=self.inputs.dataset,
            eval_dataset=self.inputs.eval_dataset,
            reward=self.inputs.reward,
        )
        with isolated():
            checkpoint = f"model.name={quoted(str(self.checkpoint))}"
            arguments = [*self.arguments, *named.overrides(), *overrides, checkpoint]
            c = compose(composed([*arguments, "output_dir=."]))
            saved = saved_config(str(self.checkpoint))
            try:
                held_out = same_problems(c.raw, saved)
                return evaluated(c, held_out=held_out, say=lambda line: None)[0].metrics
            finally:
                close(c)


def train(  # noqa: PLR0913 - keywords of the public call
    *overrides: str,
    model: Any = None,
    tokenizer: Any = None,
    dataset: Any = None,
    eval_dataset: Any = None,
    reward: RewardLike | Sequence[RewardLike] | None = None,
    peft_config: Any = None,
    output_dir: str | Path | None = None,
    resume: str | Path | None = None,
) -> TrainedRun:
    """Train, as `python -m rlkit.run` does, and return the run.

        run = rlkit.train("algorithm=remix", model=model, tokenizer=tokenizer, dataset=rows,
                          reward=my_reward, output_dir="out")

    Args:
        *overrides: settings as on the command line: "algorithm=remix", "train.steps=50".
        model: a name, a folder, or a PreTrainedModel, which is trained in place.
        tokenizer: the tokenizer of a model object.
        dataset: a `datasets.Dataset`, a list of dicts, or the name of a file or data set, with a
            column `prompt` and one of answers; `task.*` are the settings of task=jsonl.
        eval_dataset: held-out rows in the same form; by default some of `dataset` are held out.
        reward: registered names and functions (also async) with TRL's signature,
            `f(prompts, completions, **columns) -> list[float | None]`.
        peft_config: a `peft.LoraConfig`; its r, alpha, dropout and target modules are used.
        output_dir: the run folder; default runs/<algorithm>-<time>.
        resume: "never" (default), "auto" or a checkpoint folder.

    No global state changes: Hydra's state, environment variables, signal handlers, random
    generators, torch's flags and the registry are restored. config.yaml names in-memory objects by
    class and hash; pass them again to resume. Raises UserError for whatever the command line would
    reject.
    """
    inputs = Inputs(
        model=model,
        tokenizer=tokenizer,
        dataset=dataset,
        eval_dataset=eval_dataset,
        reward=reward,
        peft_config=peft_config,
    )
    arguments = list(overrides)
    if resume is not None:
        arguments.append(f"resume={quoted(str(resume))}")
    if output_dir is not None:
        arguments.append(f"output_dir={quoted(str(output_dir))}")
    with isolated():
        given = inputs.given
        raw, finished = composed([*arguments, *inputs.overrides()]), True
        processes = open_processes(raw["model"]["device"])
        try:
            path = execute(raw, arguments, list(stages_of(raw, arguments)), processes, given)
        except Stopped:
            path, finished = Path(raw["output_dir"]), False
    return TrainedRun(path=path, finished=finished, arguments=tuple(overrides), inputs=inputs)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that Hydra composes. Raises UserError if Hydra rejects the overrides."""
    try:
        arguments = import_before_compose(overrides)
        with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
            config = hydra_compose("config", overrides=arguments, return_hydra_config=True)
        label = str(config.hydra.runtime.choices["algorithm"])
        OmegaConf.register_new_resolver("run_label", lambda: label, replace=True)
        with open_dict(config):
            del config["hydra"]
        raw: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            config, resolve=True, throw_on_missing=True
        )
    except MAPPED as error:
        raise UserError(one_line(error)) from error
    return raw


def stages_of(raw: Mapping[str, Any], overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The composed configuration of each stage, if there are any."""
    if not raw["stages"]:
        return []
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        return list(stage_configs(raw, overrides))


@contextmanager
def isolated() -> Generator[None]:
    """Restores, on exit, every global that a run changes."""
    hydra, store = GlobalHydra.instance(), ConfigStore.instance()
    held, repo, path = hydra.hydra, store.repo, list(sys.path)
    environment, draws = dict(os.environ), rng_state()
    bars = transformers.is_progress_bar_enabled()
    resolver = OmegaConf.has_resolver("run_label")
    hydra.clear()
    store.repo = dict(repo)
    try:
        with scoped():
            yield
    finally:
        GlobalHydra.instance().clear()
        if held is not None:
            GlobalHydra.instance().initialize(held)
        store.repo, sys.path[:] = repo, path
        OmegaConf.clear_resolver("run_label")
        if resolver:
            OmegaConf.register_new_resolver("run_label", run_label)
        os.environ.clear()
        os.environ.update(environment)
        load_rng_state(draws)
        if bars:
            transformers.enable_progress_bar()  # type: ignore[no-untyped-call]
