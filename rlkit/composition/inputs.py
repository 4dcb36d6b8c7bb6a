"""In-memory models, data sets and functions as settings of a run."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import create_model

from rlkit.composition.composition import Given
from rlkit.config.overrides import quoted
from rlkit.errors import UserError, kind_of
from rlkit.registry import from_function, register
from rlkit.tasks.dataset import dataset_task

RewardLike = str | Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What `train` was given besides overrides."""

    model: Any = None
    tokenizer: Any = None
    dataset: Any = None
    eval_dataset: Any = None
    reward: RewardLike | Sequence[RewardLike] | None = None
    peft_config: Any = None

    def __post_init__(self) -> None:
        """Raise UserError for a model or a reward that is no such thing."""
        named = self.model is None or isinstance(self.model, str | Path)
        if not (named or all(hasattr(self.model, key) for key in ("config", "named_parameters"))):
            raise UserError(
                f"model= is {kind_of(self.model)}: give a name, a folder or a PreTrainedModel"
            )
        for reward in self.rewards:
            if not (isinstance(reward, str) or callable(reward)):
                raise UserError(
                    f"reward= has {kind_of(reward)} in it: give a reward's name, a function "
                    "f(prompts, completions, **columns), or a list of them"
                )

    @property
    def rewards(self) -> Sequence[RewardLike]:
        """The rewards, of which there may be one without a list."""
        if self.reward is None:
            return []
        listed = isinstance(self.reward, Sequence) and not isinstance(self.reward, str)
        return cast("Sequence[RewardLike]", self.reward if listed else [self.reward])

    @property
    def given(self) -> Given:
        """The objects that no setting can name."""
        if self.model is None or isinstance(self.model, str | Path):
            if self.tokenizer is not None:
                raise UserError(
                    "tokenizer= goes with a model object; a model name or folder has its own"
                )
            return Given()
        if self.tokenizer is None:
            raise UserError(
                f"model= is a {type(self.model).__name__}: pass its tokenizer too, tokenizer=..."
            )
        return Given(model=self.model, tokenizer=self.tokenizer)

    def overrides(self) -> list[str]:
        """The inputs as overrides; those in memory are registered under a name."""
        out: list[str] = []
        if isinstance(self.model, str | Path):
            out.append(f"model.name={quoted(str(self.model))}")
        elif self.model is not None:
            out.append(f"model.name={quoted(model_description(self.model))}")
            out.append(f"model.dtype={str(self.model.dtype).removeprefix('torch.')}")
        return out + self._data_overrides() + self._reward_overrides() + self._lora_overrides()

    def _data_overrides(self) -> list[str]:
        if self.dataset is None and self.eval_dataset is not None:
            raise UserError("eval_dataset= goes with dataset=")
        if self.dataset is None:
            return []
        names = [self.dataset, *([] if self.eval_dataset is None else [self.eval_dataset])]
        if all(isinstance(name, str | Path) for name in names):
            keys = ("task.path", "task.eval_path")
            settings = [f"{k}={quoted(str(n))}" for k, n in zip(keys, names, strict=False)]
            return ["task=jsonl", *settings]
        if any(isinstance(name, str | Path) for name in names):
            raise UserError("dataset= and eval_dataset= must both be names or both be in memory")
        register("task", "dataset")(dataset_task(self.dataset, self.eval_dataset))
        return ["task=dataset"]

    def _reward_overrides(self) -> list[str]:
        if self.reward is None:
            return []
        names = [
            reward if isinstance(reward, str) else registered_reward(reward)
            for reward in self.rewards
        ]
        return [f"reward=[{','.join(names)}]"]

    def _lora_overrides(self) -> list[str]:
        if self.peft_config is None:
            return []
        c = self.peft_config
        kind = getattr(getattr(c, "peft_type", None), "value", type(c).__name__)
        if kind != "LORA":
            raise UserError(f"peft_config= must be a peft.LoraConfig, not a config of {kind}")
        targets = c.target_modules or "all-linear"
        written = quoted(targets) if isinstance(targets, str) else f"[{','.join(sorted(targets))}]"
        return [
            f"model.lora.r={c.r}",
            f"model.lora.alpha={c.lora_alpha}",
            f"model.lora.dropout={c.lora_dropout}",
            f"model.lora.target_modules={written}",
        ]


def registered_reward(function: Callable[..., Any]) -> str:
    """Register a function as a reward under its name, with its hash as a setting."""
    part = from_function("reward", function)
    name = part.__name__.strip("<>")
    config = create_model(
        f"{name}Config", __base__=part.Config, source=(str, function_description(function))
    )
    register("reward", name)(type(name, (part,), {"Config": config, "__module__": part.__module__}))
    return name


def function_description(function: Callable[..., Any]) -> str:
    """How a configuration names a function: class and hash of its source."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # defined in a shell, or a callable object
        code = getattr(function, "__code__", None)
        text = code.co_code.hex() if code is not None else type(function).__qualname__
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"object {type(function).__name__} sha256:{digest}"


def model_description(model: Any) -> str:
    """How a configuration names a model in memory: class and hash of a sample of its weights."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // 256)].float().cpu()
        digest.update(name.encode() + sample.numpy().tobytes())
    return f"object {type(model).__name__} sha256:{digest.hexdigest()[:16]}"
