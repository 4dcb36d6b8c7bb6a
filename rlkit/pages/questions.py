"""The questions that a run's page answers, and the plots that answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlkit.pages.score import PASS
from rlkit.runs.records import ROLLOUTS, SECONDS, TOKENS

SCORES = r"eval/(.+/)?(pass@\d+|avg@\d+|maj@\d+|greedy|win_rate)"
SOURCES = r"eval/source/.+/pass@1"
OTHER_SCORES = rf"(?!{PASS}$|{SOURCES}$){SCORES}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot: every metric whose whole key matches `keys`."""

    name: str
    """Its id on the page, which warnings link to."""
    title: str
    keys: str
    unit: str = ""
    note: str = ""
    x: str | None = None
    """An axis of its own; None = the one the reader has chosen."""
    stacked: bool = False
    log: bool = False
    smooth: bool = True
    quiet: bool = False
    """Left out while every value is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Plots that answer one question."""

    name: str
    title: str
    panels: Sequence[Panel]


LEARNS = Question(
    name="learns",
    title="Does it learn?",
    panels=(
        Panel(
            name="score",
            title="Held-out pass@1",
            keys=PASS,
            smooth=False,
        ),
        Panel(name="scores", title="Other held-out scores", keys=OTHER_SCORES, smooth=False),
        Panel(name="sources", title="Held-out pass@1 by source", keys=SOURCES, smooth=False),
        Panel(name="reward", title="Reward", keys=r"reward/(.+/)?mean"),
        Panel(
            name="eval-reward",
            title="Held-out reward",
            keys=r"eval/(.+/)?reward(/.+)?",
            smooth=False,
        ),
        Panel(name="spread", title="Spread of the rewards", keys=r"reward/std"),
        Panel(
            name="limits",
            title="Multipliers of costs, and their means above the limits",
            keys=r"reward/.+/(multiplier|violation)",
        ),
        Panel(
            name="length",
            title="Response length",
            keys=r"completions/mean_length|eval/(.+/)?mean_length",
            unit="tokens",
        ),
        Panel(
            name="truncated",
            title="Responses cut at the length limit",
            keys=r"completions/clipped_ratio|eval/(.+/)?truncated",
            unit="share",
        ),
        Panel(
            name="reflection",
            title="Held-out responses that reflect",
            keys=r"eval/(.+/)?reflection_rate",
            unit="share",
            smooth=False,
        ),
        Panel(
            name="failures",
            title="Rewards that failed",
            keys=r"reward/(errors|timeouts|lost|unparsed)",
            unit="per step",
            quiet=True,
            smooth=False,
        ),
        Panel(
            name="turns",
            title="Turns and calls of a response",
            keys=r"turns/mean|tools/calls",
            unit="mean",
        ),
        Panel(name="turn-rewards", title="Reward by number of turns", keys=r"turns/reward_\d+"),
        Panel(
            name="calls",
            title="Calls that failed",
            keys=r"tools/(failures|unparsable|timeouts|lost|restarted)",
            unit="per response",
            quiet=True,
        ),
    ),
)
COST = Question(
    name="cost",
    title="At what cost?",
    panels=(
        Panel(
            name="by-responses",
            title="Score over responses generated",
            keys=PASS,
            x=ROLLOUTS,
            smooth=False,
        ),
        Panel(
            name="by-tokens",
            title="Score over tokens generated",
            keys=PASS,
            x=TOKENS,
            smooth=False,
        ),
        Panel(
            name="by-seconds",
            title="Score over seconds of training",
            keys=PASS,
            x=SECONDS,
            smooth=False,
            note="Without the time of the evaluations themselves.",
        ),
        Panel(
            name="reuse",
            title="Times a response is trained on",
            keys=r"buffer/reuse_mean",
            unit="mean so far",
            smooth=False,
        ),
    ),
)
OFF_POLICY = Question(
    name="off-policy",
    title="How off-policy is it?",
    panels=(
        Panel(
            name="ages",
            title="Age of the trained responses",
            keys=r"buffer/age_(mean|max)|off_policy/staleness_(mean|max)",
            unit="steps",
        ),
        Panel(
            name="fresh",
            title="Fresh share of the batch",
            keys=r"buffer/fresh_fraction",
            unit="share",
        ),
        Panel(
            name="ratio",
            title="Ratio by age",
            keys=r"policy/ratio_mean(_age_\d+)?",
            note="Mean ratio of the policy to the one that sampled; 1 where they agree.",
        ),
        Panel(
            name="clip",
            title="Clipped share by age",
            keys=r"policy/clip_fraction(_age_\d+)?",
            unit="of tokens",
            note="Tokens whose ratio the loss clips, which stops their gradient.",
        ),
        Panel(
            name="ess",
            title="Effective sample size",
            keys=r"off_policy/(sequence_)?ess",
            unit="share of the batch",
            note="1 = weighs like fresh data; near 0, a few tokens or responses decide.",
        ),
        Panel(
            name="drift",
            title="KL to the policy that sampled",
            keys=r"off_policy/kl",
            unit="nats per token",
        ),
        Panel(
            name="engine",
            title="Engine against trainer",
            keys=r"off_policy/engine_(kl|difference_mean)",
            unit="nats per token",
            note="Log-probs of the same tokens under the same weights.",
        ),
        Panel(
            name="engine-worst",
            title="Largest difference from the engine",
            keys=r"off_policy/engine_difference_max",
            unit="nats",
        ),
        Panel(name="correction", title="Corrections", keys=r"correction/.+"),
        Panel(
            name="dropped",
            title="Groups dropped, waiting or unfinished",
            keys=r"off_policy/(dropped|ahead|partial_groups|waiting_groups)",
            unit="per step",
            quiet=True,
        ),
        Panel(
            name="dropped-length",
            title="Length of the groups dropped for their age",
            keys=r"off_policy/dropped_mean_length",
            unit="tokens",
            smooth=False,
            note="Longer than other responses? Then dropping by age biases the data to short ones.",
        ),
        Panel(
            name="dropped-pass",
            title="Pass rate of the groups dropped",
            keys=r"off_policy/dropped_(pass_rate|reward|mean_reward)",
            smooth=False,
        ),
        Panel(
            name="continued",
            title="Responses continued from an earlier step",
            keys=r"off_policy/continued_fraction",
            unit="share",
            quiet=True,
        ),
        Panel(name="stock", title="What the buffer holds", keys=r"buffer/(size|groups)"),
    ),
)
STABLE = Question(
    name="stable",
    title="Is it stable?",
    panels=(
        Panel(name="entropy", title="Entropy", keys=r"policy/entropy", unit="nats per token"),
        Panel(name="kl", title="KL to the anchor", keys=r"anchor/kl(_.+)?", unit="nats per token"),
        Panel(name="loss", title="Loss", keys=r"(policy|critic)/loss"),
        Panel(name="norm", title="Gradient norm", keys=r"(policy|critic)/grad_norm"),
        Panel(name="peak", title="Largest ratio", keys=r"policy/ratio_max", log=True),
        Panel(
            name="skipped",
            title="Updates skipped",
            keys=r"policy/skipped_steps",
            unit="per step",
            quiet=True,
            smooth=False,
        ),
        Panel(
            name="critic", title="Critic's explained variance", keys=r"critic/explained_variance"
        ),
        Panel(name="weights", title="Anchor weights", keys=r"anchor/weight_.+", smooth=False),
        Panel(name="rate", title="Learning rate", keys=r"policy/lr|critic/lr", smooth=False),
        Panel(
            name="ess_rate",
            title="Learning rate by the effective sample size",
            keys=r"policy/lr_ess_factor",
            unit="share of the rate",
        ),
    ),
)
TIME = Question(
    name="time",
    title="Where did the time go?",
    panels=(
        Panel(
            name="seconds",
            title="Seconds per step",
            keys=r"time/(rollout|reward|forward|update|sync|rest)",
            unit="seconds",
            stacked=True,
        ),
        Panel(
            name="throughput",
            title="Trained tokens per second",
            keys=r"throughput/tokens_per_s",
        ),
        Panel(
            name="eval-seconds",
            title="Seconds per evaluation",
            keys=r"time/eval",
            unit="seconds",
            smooth=False,
        ),
        Panel(name="memory", title="Peak memory", keys=r"memory/peak_mb", unit="MiB", smooth=False),
    ),
)
QUESTIONS = (LEARNS, COST, OFF_POLICY, STABLE, TIME)
NOT_PLOTTED = r"eval/.+_(error|low|high)|time/step|run/processes"
"""Drawn as part of another plot, or told in words."""
