"""How a rollout uses the earlier responses to a prompt: as drafts, or to sample what they lack."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlkit.interfaces import PartConfig


class DraftSettings(PartConfig):
    """Settings of `rollout.draft`, see docs/drafts.md."""

    draft: Literal["none", "spec_rl"] = "none"
    """spec_rl = a prompt's responses of its previous visit are drafts of the new ones, and tokens
    that the policy would sample again are not generated again (SPEC-RL, arXiv:2509.23232)."""
    draft_rule: Literal["exact", "lenient"] = "exact"
    """exact = the policy's own draws, as far as they are the draft's tokens; lenient = the paper's
    rule, log U <= draft_scale (log pi - log mu - draft_bias) with mu the policy that sampled the
    token: fewer tokens are generated, and what is kept is off-policy and labeled so."""
    draft_uniforms: Literal["new", "stored"] = "new"
    """With the exact rule: which random numbers draw. new = independent of every earlier visit;
    stored = those that drew the draft, so that much more of it comes out equal, but the draws of a
    prompt's visits depend on each other. stored needs rollout=hf."""
    draft_scale: Annotated[float, Field(ge=0)] = 1.0
    """s of the lenient rule; below 1 keeps more."""
    draft_bias: float = 0.0
    """b of the lenient rule, in nats; below 0 keeps more: exp(-b) is the paper's lenience, whose
    values are unconfirmed."""
    draft_tokens: Annotated[int, Field(ge=1)] = 2**24
    """Most tokens of drafts in memory; prompts that were visited longest ago lose theirs first."""


class BehaviorSettings(PartConfig):
    """Settings of `rollout.behavior`, see docs/drafts.md."""

    behavior: Literal["policy", "props"] = "policy"
    """props = an adapter on the policy makes the tokens less probable that earlier responses to the
    same prompts already hold, so that all of them together are more like samples of the policy
    (PROPS, arXiv:2311.08290)."""
    behavior_rounds: Annotated[int, Field(ge=1)] = 2
    """A group's responses are generated in this many rounds; each sees those before it. The paper
    updates every 16 of 256 steps."""
    behavior_visits: Annotated[int, Field(ge=0)] = 1
    """Earlier visits of a prompt that count besides the current one; the paper's buffer holds two
    batches, the current one included."""
    behavior_steps: Annotated[int, Field(ge=1)] = 16
    """Most steps of the adapter before a round; 4 or 16 by the version of the public code,
    unconfirmed."""
    behavior_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of the adapter, which Adam trains."""
    behavior_clip: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """epsilon: a token whose ratio to the policy is below 1 - epsilon is pushed no further."""
    behavior_kl: Annotated[float, Field(ge=0)] = 0.1
    """lambda, the weight of KL(policy || adapter); unconfirmed, 0.1 is set in the public code and
    not read there."""
    behavior_kl_limit: Annotated[float, Field(gt=0)] | None = 0.03
    """The adapter's steps end when that KL, in nats per token, is above this; 0.01 or 0.03 by the
    version of the public code, unconfirmed. null = never."""
    behavior_rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the adapter before the output layer (our choice)."""
    behavior_tokens: Annotated[int, Field(ge=1)] = 2**18
    """Most tokens of earlier responses in memory; prompts that were visited longest ago lose theirs
    first."""


ABLE = "use rollout=hf"


def conflict(config: Any) -> str | None:
    """Why a rollout's settings exclude a draft or a behavior adapter that they ask for, if so."""
    drafts, adapts = config.draft != "none", config.behavior != "policy"
    if drafts and adapts:
        return "rollout.draft and rollout.behavior both choose what is sampled: use one of them"
    if drafts:
        name = f"rollout.draft={config.draft}"
        return _out_of_step(name, config) or _no_drafts(name, config)
    if not adapts:
        return None
    name = f"rollout.behavior={config.behavior}"
    if not config.samples_policy:
        return f"{name} is an adapter on the policy's own modules: {ABLE}"
    return _out_of_step(name, config)


def _out_of_step(name: str, config: Any) -> str | None:
    """Why responses are not those of the current weights, whole, in the training process."""
    if config.mode != "sync":
        return f"{name} keeps responses where training runs: use rollout.mode=sync"
    if config.oversample > 0:
        return f"{name} needs responses that end in their step: use rollout.oversample=0"
    if config.sync_every > 1:
        return f"{name} reads the policy's current weights: use rollout.sync_every=1"
    return None


def _no_drafts(name: str, config: Any) -> str | None:
    """Why an engine cannot use drafts in the way that is asked for."""
    if not config.continues:
        return (
            f"{name} needs an engine that can continue a response, and this one cannot: leave it "
            "at none, or use rollout=hf, vllm or vllm_server"
        )
    if config.draft_uniforms == "new":
        return None
    if config.draft_rule == "lenient":
        return "rollout.draft_uniforms=stored is for rollout.draft_rule=exact: leave it at new"
    if not config.inverts_uniforms:
        return f"rollout.draft_uniforms=stored needs the numbers that drew each token: {ABLE}"
    return None
