"""One part of every kind but environments, from scratch. docs/own_parts.md explains them.

rlkit train plugins=[./examples/every_part.py] task=my_task loss=my_loss
"""

from __future__ import annotations

import copy
import csv
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from buffers.storage import group_from_state, group_state
from rlkit.batch import (
    AdvantageBatch,
    AdvantageOutput,
    Corrected,
    Group,
    LossBatch,
    LossOutput,
    PolicyTerms,
    Request,
    Term,
)
from rlkit.interfaces import (
    AdvantageEstimator,
    AnchorConfig,
    AnchorPolicy,
    Correction,
    FreezablePolicy,
    LossConfig,
    PartConfig,
    Phase,
    PolicyLoss,
    Progress,
    Reference,
    ReincarnationSchedule,
    ReplayBuffer,
    Reward,
    RewardConfig,
    State,
    Task,
    TaskConfig,
    TaskData,
    Tokens,
    Tracker,
)
from rlkit.models.policy import Policy
from rlkit.ops import group_centred, group_max, masked_ratio, over_tokens, stream_seed
from rlkit.registry import register
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig, RolloutEngine


class MyLossConfig(LossConfig):
    """Settings of my_loss."""

    cap: Annotated[float, Field(gt=0)] = 2.0
    """Largest importance weight."""
    imitation: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the term that imitates responses with an advantage above 0."""


@register("loss", "my_loss")
class MyLoss(PolicyLoss[MyLossConfig]):
    """L = -sg[min(pi/mu, cap)] A log pi - imitation 1[A > 0] log pi."""

    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Values per token, [B, T]; rlkit aggregates them over the minibatch."""
        logp = torch.where(batch.mask, policy.logp, 0.0)
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask).detach()
        value = -ratio.clamp(max=self.config.cap) * batch.advantage * logp
        better = -(batch.advantage > 0).to(logp.dtype) * logp
        return LossOutput(
            terms=[
                Term(name="policy", value=value, mask=batch.mask),
                Term(
                    name="imitation",
                    value=better,
                    mask=batch.mask,
                    weight=self.config.imitation,
                    corrected=False,
                ),
            ],
            metrics={"ratio_mean": ratio},
        )


def my_function_loss(policy: PolicyTerms, batch: LossBatch) -> Tensor:
    """L = -pi/mu A, without a class."""
    ratio = masked_ratio(policy.logp, batch.behavior_logp, batch.mask, 20.0)
    return -ratio * batch.advantage


class MyCorrectionConfig(PartConfig):
    """Settings of my_correction."""

    discount: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor per step of age."""


@register("correction", "my_correction")
class MyCorrection(Correction[MyCorrectionConfig]):
    """Weighs each response by discount^age."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The same batch and a weight per token, [B, T]."""
        weight = self.config.discount ** batch.age.to(policy.logp.dtype)  # [B]
        return Corrected(batch=batch, weight=weight[:, None].expand_as(policy.logp))


class MyAdvantageConfig(PartConfig):
    """Settings of my_advantage."""

    floor: Annotated[float, Field(gt=0)] = 0.1
    """Smallest spread that is divided by."""


@register("advantage", "my_advantage")
class MyAdvantage(AdvantageEstimator[MyAdvantageConfig]):
    """A = (R - mean of the group) / max(largest distance to the mean, floor), within [-1, 1]."""

    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """The same advantage for every token of a response."""
        centred = group_centred(b.reward, b.group)  # [B]
        spread = group_max(centred.abs(), b.group).clamp(min=self.config.floor)
        return AdvantageOutput(
            advantage=over_tokens(centred / spread, b.mask), returns=over_tokens(b.reward, b.mask)
        )


class MyBufferConfig(PartConfig):
    """Settings of my_buffer."""

    replayed: Annotated[int, Field(ge=0)] = 1
    """Groups replayed per step, if there are as many."""
    capacity: Annotated[int, Field(ge=1)] = 64
    """Groups kept, the newest ones."""


@register("buffer", "my_buffer")
class MyBuffer(ReplayBuffer[MyBufferConfig]):
    """Keeps groups with right and wrong answers and replays each once, in random order."""

    def __init__(self, config: MyBufferConfig | None = None) -> None:
        super().__init__(config)
        self.stored: list[Group] = []

    def fresh_share(self, batch: int) -> int:
        """At least one group is generated."""
        return max(1, batch - self.config.replayed)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, and stored ones in the places left."""
        count = max(0, min(batch - len(fresh), len(self.stored)))
        drawn = set(self.rng(step).choice(len(self.stored), count, replace=False).tolist())
        replayed = [group for i, group in enumerate(self.stored) if i in drawn]
        self.stored = [group for i, group in enumerate(self.stored) if i not in drawn]
        return fresh + replayed

    def add(self, fresh: list[Group], step: int) -> None:
        """Keep the groups whose rewards differ."""
        mixed = [group for group in fresh if len({s.reward for s in group.samples}) > 1]
        self.stored = (self.stored + mixed)[-self.config.capacity :]

    def clear(self) -> None:
        """Forget everything."""
        self.stored = []

    def __len__(self) -> int:
        return sum(len(group.samples) for group in self.stored)

    def state_dict(self) -> State:
        """The stored groups, as dicts of tensors, numbers and text."""
        return {"groups": [group_state(group) for group in self.stored]}

    def load_state_dict(self, state: State) -> None:
        """Take the stored groups back."""
        self.stored = [group_from_state(group) for group in state["groups"]]


class Teacher:
    """A model with the policy's tokenizer that scores the policy's responses."""

    def __init__(self, path: str, temperature: float) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(path).train(False)
        self.temperature = temperature

    @torch.no_grad()
    def logp(self, tokens: Tokens) -> Tensor:
        """Log-prob of each response token, [B, T]."""
        first = tokens.prompt_ids.shape[1] - 1
        logits = self.model(**tokens.model_inputs(self.model.device)).logits[:, first:-1]
        logp = (logits.float() / self.temperature).log_softmax(-1).cpu()  # [B, T, V]
        chosen = logp.gather(-1, tokens.response_ids[..., None]).squeeze(-1)  # [B, T]
        inside = torch.arange(chosen.shape[1]) < tokens.response_lengths[:, None]
        return torch.where(inside, chosen, 0.0)

    def state_dict(self) -> State:
        """Nothing: the teacher is loaded from its folder again."""
        return {}


class MyAnchorConfig(AnchorConfig):
    """Settings of my_anchor."""

    path: str | None = None
    """Folder or Hugging Face name of the teacher; null = the policy that training starts from."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the teacher's log-probs; that of the rollout."""


@register("anchor", "my_anchor")
class MyAnchor(AnchorPolicy[MyAnchorConfig]):
    """beta KL(pi || teacher)."""

    teacher: Reference | None = None

    def weights(self, step: int) -> Mapping[str, float]:
        """The whole penalty is on the teacher."""
        return {"teacher": 1.0}

    def reference(self, name: str) -> Reference | None:
        """The teacher."""
        return self.teacher

    def number(self, name: str) -> int | None:
        """It never changes, so its log-probs are kept with the samples."""
        return 1

    def rebase(self, policy: FreezablePolicy) -> None:
        """Load it before the first step; a rebirth leaves it as it is."""
        if self.teacher is None:
            self.teacher = self._loaded() or policy.freeze()

    def _loaded(self) -> Reference | None:
        c = self.config
        return None if c.path is None else Teacher(c.path, c.temperature)

    def state_dict(self) -> State:
        """The weights, unless they are in a folder already; and the factor of `target_kl`."""
        assert self.teacher is not None
        return {"factor": self.factor, "weights": self.teacher.state_dict()}

    def restore(self, policy: FreezablePolicy, state: State) -> None:
        """Take both back."""
        self.factor = state["factor"]
        self.teacher = self._loaded() or policy.restore(state["weights"])


class MyScheduleConfig(PartConfig):
    """Settings of my_schedule."""

    target: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Held-out pass@1 at which replay ends."""


@register("schedule", "my_schedule")
class MySchedule(ReincarnationSchedule[MyScheduleConfig]):
    """Replays until an evaluation reaches the target; then the policy becomes its own base."""

    reached = False

    def phase(self, progress: Progress) -> Phase:
        """The events fire in the step whose phase names them."""
        fires = not self.reached and progress.eval.get("eval/pass@1", 0.0) >= self.config.target
        self.reached = self.reached or fires
        return Phase(
            name="after" if self.reached else "before",
            replay=not self.reached,
            events=frozenset({"rebase", "clear_buffer"} if fires else ()),
        )

    def state_dict(self) -> State:
        """Whether the target was reached."""
        return {"reached": self.reached}

    def load_state_dict(self, state: State) -> None:
        """Take it back."""
        self.reached = state["reached"]


def closeness(
    completions: Sequence[str], answer: Sequence[str], **columns: Sequence[Any]
) -> list[float | None]:
    """1 for the right sum, 1/2 if it is off by one, and so on; 0 without a number."""
    last = [re.findall(r"\d+", text)[-1:] for text in completions]
    return [
        1 / (1 + abs(int(number[0]) - int(right))) if number else 0.0
        for number, right in zip(last, answer, strict=True)
    ]


class MyRewardConfig(RewardConfig):
    """Settings of my_reward."""

    tokens: Annotated[int, Field(ge=1)] = 12
    """Longest response that is rewarded."""


@register("reward", "my_reward")
class MyReward(Reward[MyRewardConfig]):
    """1 for a response of at most so many tokens, else 0."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One value per completion; None = does not apply."""
        return [float(len(ids) <= self.config.tokens) for ids in columns["completion_ids"]]


class MyTaskConfig(TaskConfig):
    """Settings of my_task."""

    largest: Annotated[int, Field(ge=5, le=9)] = 6
    """Largest digit."""
    problems: Annotated[int, Field(ge=20, le=2000)] = 400
    """Problems; every fifth is held out."""


@register("task", "my_task")
class MyTask(Task[MyTaskConfig]):
    """Sums of five digits: "3+1+5+2+2=" is answered by "04,09,11#13"."""

    scores = True

    @property
    def embedded(self) -> bool:
        """The embedded model knows sums of five digits."""
        return True

    def load(self, seed: int) -> TaskData:
        """Different problems, drawn by the seed."""
        n = self.config.largest
        numbers = random.Random(seed).sample(range(n**5), self.config.problems)
        digits = [[number // n**i % n + 1 for i in range(5)] for number in numbers]
        rows = [{"prompt": "+".join(map(str, d)) + "=", "answer": f"{sum(d):02d}"} for d in digits]
        return TaskData(train=[r for i, r in enumerate(rows) if i % 5], eval=rows[::5])

    def score(self, completion: str, row: Mapping[str, Any]) -> float:
        """Used when no reward is chosen."""
        return float(completion.partition("#")[2] == row["answer"])


class MyRolloutConfig(RolloutConfig):
    """Settings of my_rollout."""

    @model_validator(mode="after")
    def _samples_from_the_policy(self) -> Self:
        if self.truncates or self.stop:
            raise ValueError("rollout=my_rollout has no top_p, top_k or stop; use rollout=hf")
        return self


@register("rollout", "my_rollout")
class MyRollout(RolloutEngine[MyRolloutConfig]):
    """Samples token by token, without a cache, from a copy of the policy."""

    copies_model = True

    def start(self, policy: Policy, seed: int) -> None:
        """Take the policy before the first generation."""
        self.policy, self.seed = policy, seed
        self.sync(1)

    def sync(self, step: int) -> None:
        """Copy the weights that training step `step` starts from."""
        self.model, self.version = copy.deepcopy(self.policy.model).train(False), step

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """The responses to this process's requests; the draws depend on the stream alone."""
        out = []
        for index in range(len(call.requests))[call.part]:
            draws = torch.Generator().manual_seed(stream_seed(self.seed, *call.stream, index))
            out.append(self._responses(call.requests[index], draws, call.greedy))
        return out

    @torch.no_grad()
    def _responses(
        self, request: Request, draws: torch.Generator, greedy: bool
    ) -> list[Generation]:
        ids = request.prompt.ids.repeat(request.n, 1)  # [n, P]
        logps, length = [], self.config.max_completion_length
        for _ in range(length):
            logits = self.model(ids.to(self.model.device)).logits[:, -1].float().cpu()
            logp = (logits / self.config.temperature).log_softmax(-1)  # [n, V]
            sampled = torch.multinomial(logp.exp(), 1, generator=draws)
            token = logp.argmax(-1, keepdim=True) if greedy else sampled  # [n, 1]
            ids = torch.cat([ids, token], 1)
            logps.append(logp.gather(-1, token))
        new = ids[:, -length:]  # [n, T]
        return [self._generation(*row) for row in zip(new, torch.cat(logps, 1), strict=True)]

    def _generation(self, ids: Tensor, logp: Tensor) -> Generation:
        """One response, up to its first end-of-sequence token."""
        ends = (ids == self.policy.tokenizer.eos_token_id).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(ids)
        return Generation(
            response_ids=ids[:length].clone(),
            logp=logp[:length].clone(),
            policy_version=torch.full((length,), self.version, dtype=torch.int32),
            finish_reason="stop" if len(ends) else "length",
            extras={},
        )


class MyTrackerConfig(PartConfig):
    """Settings of my_tracker."""

    file: str = "metrics.csv"
    """File in the run's folder."""


@register("tracker", "my_tracker")
class MyTracker(Tracker[MyTrackerConfig]):
    """Writes step, key, value lines."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Remember where to write."""
        self.path = Path(run_dir) / self.config.file
        return None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A training step or an evaluation."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows((step, key, value) for key, value in metrics.items())
