"""A reward model: a sequence classification model of transformers with a single label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from rlkit.config.devices import DEVICE, device_of
from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig, RunContext
from rlkit.registry import register
from rlkit.rewards.learned.files import check_models
from rlkit.rewards.learned.scorer import Scorer, Source, scorer
from rlkit.rewards.learned.texts import Form, Reader
from rlkit.rewards.missing_eos import CUT_OFF
from rlkit.rewards.scoring import FINISH_REASONS


class ModelRewardConfig(RewardConfig):
    """Settings of `model`."""

    path: str | tuple[str, ...] = ()
    """The Hugging Face name or the folder of a sequence classification model with one label and its
    tokenizer, as safetensors. A list = one model whose weights are the mean of theirs (WARM,
    arXiv:2401.12187); they must be finetunes of the same model."""
    device: Annotated[str, Field(pattern=DEVICE)] = "auto"
    """auto, cpu, cuda or cuda:N; auto uses CUDA if available. It need not be model.device."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """dtype of its weights and forwards; scores are float32."""
    form: Form = "auto"
    """How it reads a prompt with its response. auto = messages in its own chat template, texts one
    after the other, as TRL trains; chat = texts become a user's and an assistant's message; pair =
    two texts, encoded as the tokenizer encodes pairs (as OpenAssistant's models read)."""
    eos: bool = True
    """Whether a response that ended by itself is followed by the tokenizer's end of sequence, where
    texts stand one after the other; TRL's RewardTrainer puts it behind all."""
    batch_tokens: Annotated[int, Field(ge=1)] = 16384
    """Tokens per forward, with padding. Scores do not depend on it, up to rounding."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of a prompt with its response; null = as many as the model and its tokenizer
    take."""
    overlong: Literal["error", "cut"] = "error"
    """What happens to a longer one: the run stops, or its first tokens are left out."""
    center: float = 0.0
    """Subtracted from the model's output, such as its mean over reference responses."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies the centered output: 1 / standard deviation gives unit variance."""
    unfinished: float | None = None
    """The reward of a response that was cut off before it ended, in place of the model's; null =
    the model scores it too. Asynchronous RLHF (arXiv:2410.18252) sets -1."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The models."""
        return (self.path,) if isinstance(self.path, str) else self.path


@register("reward", "model")
class ModelReward(Reward[ModelRewardConfig]):
    """R = scale * (s(x, y) - center), s the single output of a sequence classification model.

    The model has its own tokenizer, chat template, device and dtype, and is loaded once per process
    before the policy: stages, evaluations and trials share it. With several ranks the main process
    holds it and scores the responses of all, while the others wait. Sequences are batched by length
    and padded on the right; equal ones have exactly equal scores. Files other than safetensors are
    not read, and no code of a model's is run.
    """

    sources = ("2401.12187",)
    caches = ("scorer",)
    costly = True

    def __init__(self, config: ModelRewardConfig | None = None) -> None:
        super().__init__(config)
        self.scorer: Scorer | None = None

    def open(self, context: RunContext) -> None:
        """Look at the files. Raises UserError for what is no reward model."""
        super().open(context)
        c = self.config
        if not c.paths:
            return  # told when it is called, before the policy is loaded: a plan may lack it
        device_of(c.device, "reward.model.device")
        check_models(c.paths)
        self.scorer = scorer(Source(paths=c.paths, device=c.device, dtype=c.dtype))

    def notes(self) -> Sequence[str]:
        """Which models score, and where."""
        c = self.config
        if not c.paths:
            return ()
        mean = " the mean of the weights of" if len(c.paths) > 1 else ""
        return (f"Reward model:{mean} {', '.join(c.paths)}, in {c.dtype} on {c.device}.",)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score per completion. Raises UserError for what the model cannot read."""
        c = self.config
        if not c.paths:
            raise UserError(
                "reward=model needs reward.model.path: the name or folder of a reward model, or a "
                "list of several whose weights are averaged"
            )
        if self.scorer is None:
            raise UserError("the reward 'model' was not opened: call open(context) first")
        reader = Reader(self.scorer.tokenizer, self.scorer.name, c.form, eos=c.eos)
        reasons = columns.get(FINISH_REASONS) or ["stop"] * len(completions)
        cut_off = [reason == CUT_OFF for reason in reasons]
        scored = [i for i, cut in enumerate(cut_off) if not (cut and c.unfinished is not None)]
        sequences = [
            self._fitting(reader.ids(prompts[i], completions[i], finished=not cut_off[i]))
            for i in scored
        ]
        values: list[float | None] = [c.unfinished] * len(completions)
        for i, score in zip(scored, self.scorer.score(sequences, c.batch_tokens), strict=True):
            values[i] = c.scale * (score - c.center)
        return values

    def close(self) -> None:
        """Let go of the model."""
        self.scorer = None

    def _fitting(self, ids: list[int]) -> list[int]:
        """The tokens, as many as the model takes. Raises UserError if there are more, or none."""
        assert self.scorer is not None
        c = self.config
        limits = [n for n in (c.max_length, self.scorer.longest) if n is not None]
        most = min(limits, default=len(ids))
        if not ids:
            raise UserError(
                f"a prompt and its response have no tokens for the reward model {self.scorer.name}"
            )
        if len(ids) <= most:
            return ids
        if c.overlong == "cut":
            return ids[-most:]
        raise UserError(
            f"a prompt and its response have {len(ids)} tokens of the reward model "
            f"{self.scorer.name}, which takes {most}; lower rollout.max_completion_length or "
            "rollout.max_prompt_length, or leave out the first ones: reward.model.overlong=cut"
        )
