"""Checks that the parts of a run fit together."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel

from rlkit.composition.composition import RATES, Composition
from rlkit.composition.penalties import check_penalty
from rlkit.composition.turns import check_turns
from rlkit.config.run import EMBEDDED
from rlkit.config.validation import with_value
from rlkit.errors import UserError, suggest
from rlkit.interfaces import ReplayBuffer
from rlkit.interfaces.loss import Scope
from rlkit.models.load import resolve_device
from rlkit.models.lora import has_adapter
from rlkit.registry import build, entry, names
from rlkit.training.loss_head import HIDDEN
from rlkit.training.optimizers import check_optimizer

NEEDS = ("behavior", "prox", "entropy")
"""What a part may need, besides references; losses alone, the prompts' hidden states too."""
SCOPES: tuple[str, ...] = get_args(Scope)
"""Which rows a loss or correction may say it reads together."""


def check(c: Composition) -> None:
    """Check that the parts fit together. Raises UserError with what to change."""
    smallest, n = c.parts.advantage.min_group, c.engine.config.num_generations
    if n < smallest:
        raise UserError(
            f"rollout.num_generations={n}, but this advantage compares {smallest} or more "
            f"responses per prompt; set rollout.num_generations to {smallest} or more"
        )
    check_needs(c)
    if c.buffer.gives_expert and not c.parts.loss.accepts_expert:
        able = [name for name in names("loss") if entry("loss", name).cls.accepts_expert]
        raise UserError(
            f"buffer={c.raw['buffer']['name']} adds demonstrations, whose behavior log-probs are "
            f"unknown, and loss={c.raw['loss']['name']} cannot use them; choose a loss that can: "
            f"{', '.join(able)}"
        )
    if c.buffer.unknown_behavior and c.parts.needs("behavior"):
        reader, instead = (
            ("train.lr_ess", "set train.lr_ess=null")
            if c.config.train.lr_ess is not None
            else (
                "a part of this composition",
                "choose algorithm=online_dpo, vdpo or another whose parts do not",
            )
        )
        raise UserError(
            f"buffer={c.raw['buffer']['name']} trains on responses of an unknown policy, and "
            f"{reader} reads its log-probs; {instead}"
        )
    tasks = (c.task, c.eval_task)
    if c.config.model.name == EMBEDDED and not all(t.embedded or t.compares for t in tasks):
        raise UserError(
            "the embedded model only knows its own sums, task=arithmetic as it comes; "
            "set model.name to a Hugging Face name or folder"
        )
    check_scopes(c)
    check_fields(c)
    check_average(c)
    check_penalty(c)
    check_judges(c)
    check_mode(c)
    check_sampling(c)
    check_turns(c)
    resolve_device(c.config.model.device)
    check_optimizer(c.config.train)
    check_processes(c)


def check_scopes(c: Composition) -> None:
    """Check that losses and corrections say which rows belong together in words there are."""
    said: dict[str, str] = {"the loss": c.parts.loss.scope}
    said |= {f"the correction '{name}'": part.scope for name, part in c.parts.corrections}
    for reader, scope in said.items():
        if scope not in SCOPES:
            raise UserError(
                f"{reader} has the scope '{scope}', which does not exist.{suggest(scope, SCOPES)} "
                f"Known: {', '.join(SCOPES)}"
            )


def check_needs(c: Composition) -> None:
    """Check that parts need only what there is: log-probs by name, references of the anchor."""
    parts, offered = c.parts, sorted(c.parts.anchor.weights(1))
    readers = {"the loss": parts.loss.needs, "the advantage": parts.advantage.needs}
    readers |= {f"the correction '{name}'": part.needs for name, part in parts.corrections}
    for reader, need in ((reader, need) for reader, needs in readers.items() for need in needs):
        kind, _, name = need.partition(":")
        if kind == "anchor" and name and name not in offered:
            raise UserError(
                f"{reader} needs the reference '{name}', which this anchor does not hold "
                f"(it holds: {', '.join(offered) or 'none'}); choose another anchor"
            )
        known = (*NEEDS, HIDDEN) if reader == "the loss" else NEEDS
        if need == HIDDEN and need not in known:
            raise UserError(f"{reader} needs '{HIDDEN}', which losses alone may read; leave it out")
        if need not in known and not (kind == "anchor" and name):
            raise UserError(
                f"{reader} needs '{need}', which does not exist.{suggest(need, known)} "
                f"Known: {', '.join(known)}, anchor:<name>"
            )
    if parts.advantage.prox_is_own and parts.proximal is not None:
        raise UserError(
            f"advantage={c.raw['advantage']['name']} compares the policy with its own past, and "
            f"anchor={c.raw['anchor']['name']} puts another policy in the place of its log-probs; "
            "choose another anchor"
        )


def check_processes(c: Composition) -> None:
    """Check that this many processes can run this composition."""
    places = (
        ("model", c.config.model.device, "auto"),
        ("anchor", c.parts.anchor.config.device, "null"),
    )
    for section, device, own in places:
        if c.processes.world_size > 1 and ":" in (device or ""):
            raise UserError(
                f"{section}.device={device} is one device, and there are "
                f"{c.processes.world_size} processes; leave it at {own}, which gives each its own"
            )
    in_process = c.engine.hosted_by == "single process" and c.engine.config.mode == "sync"
    if c.processes.world_size > 1 and in_process:
        raise UserError(
            "this rollout engine needs a single training process, and there are "
            f"{c.processes.world_size}; use rollout=vllm_server, or train in one process"
        )
    if not c.processes.shards_weights:
        return
    for what, asked in (
        ("model.lora", c.config.model.lora.r > 0),
        ("an advantage with a critic", c.parts.advantage.needs_critic),
        ("rollout.sync_every above 1", c.engine.config.sync_every > 1),
        (f"rollout={c.raw['rollout']['name']}", c.engine.copies_model),
        ("rollout.draft", c.engine.config.draft != "none"),
        ("rollout.behavior", c.engine.config.behavior != "policy"),
        ("model.autocast", c.config.model.autocast and c.processes.owns_precision),
        (f"train.optimizer={c.config.train.optimizer}", c.config.train.optimizer != "adamw"),
        ("train.lr_scale", c.config.train.lr_scale and c.processes.owns_precision),
        ("train.weight_decay", c.config.train.weight_decay > 0 and c.processes.owns_precision),
    ):
        if asked:
            raise UserError(
                f"{what} is not possible with processes launched like this; launch with "
                "configs/accelerate/ddp.yaml"
            )


def check_mode(c: Composition) -> None:
    """Check that responses may be generated before their step begins, if any are."""
    mode, oversample = c.engine.config.mode, c.engine.config.oversample
    if mode == "sync" and oversample == 0:
        return
    if type(c.buffer).plan is not ReplayBuffer.plan:
        early = f"rollout.mode={mode} generates earlier; use rollout.mode=sync"
        if mode == "sync":
            early = f"rollout.oversample={oversample} begins some earlier; use rollout.oversample=0"
        raise UserError(
            f"buffer={c.raw['buffer']['name']} plans a step's prompts by what it knows when the "
            f"step begins, and {early}, or a buffer that generates on new prompts"
        )
    if mode != "sync" and c.config.model.lora.r > 0:
        raise UserError(
            f"rollout.mode={mode} hands over all weights of the model, which model.lora does not "
            "train; use rollout.mode=sync with model.lora"
        )


def check_fields(c: Composition) -> None:
    """Check that the fields the reincarnation schedule sets exist and accept its values."""
    configs: dict[str, BaseModel] = {name: part.config for name, part in c.sections.items()}
    known = [
        f"{name}.{key}" for name, config in configs.items() for key in type(config).model_fields
    ]
    configs["train"] = c.config.train
    known += [f"train.{key}" for key in RATES]
    for place, extremes in c.schedule.fields().items():
        if place not in known:
            raise UserError(
                f"the schedule sets {place}, but this run has no such field.{suggest(place, known)}"
            )
        if place in c.scalars:
            raise UserError(
                f"{place} follows a scalar schedule and is also set by the reincarnation schedule; "
                "choose one of them"
            )
        section = place.rpartition(".")[0]
        for extreme in extremes:
            with_value(configs[section], place, extreme)


def check_judges(c: Composition) -> None:
    """Check that an evaluation, and pass rates in training, know which rewards mark right answers.

    Check also who wins against reference responses, and that metrics of a mix's tasks have names of
    their own.
    """
    against = c.config.eval.against
    winner, known = against.reward, list(c.eval_rewards)
    if not c.rewards and c.config.prompts.reads_pass_rates:
        raise UserError(
            "prompts.order and prompts.drop_solved read which answers are right, and this run has "
            "no reward: leave them out"
        )
    if not known:  # nothing is answered, preferences are ranked
        asked = {"reward": c.config.eval.reward, "against.responses": against.responses}
        for key, value in asked.items():
            if value is not None:
                raise UserError(
                    f"eval.{key}={value} is about answers to held-out problems, and this run has "
                    "no reward to score them: leave it out, or choose one with reward=[<name>]"
                )
        return
    judges = c.judges  # raises if no reward marks correctness
    if winner is not None and winner not in known:
        raise UserError(
            f"eval.against.reward={winner}, but this run evaluates with no such reward."
            f"{suggest(winner, known)} Rewards: {', '.join(known)}"
        )
    if against.responses is not None:
        check_contest(c, winner or judges.default)
    if c.config.prompts.reads_pass_rates:
        _ = c.training_judges  # raises if there is none
    for each in c.benchmarks:
        if each.target.name in c.eval_task.mix:
            raise UserError(
                f"eval.on and task.parts both name '{each.target.name}', and both would be logged "
                f"as {each.name}/pass@1; rename the task in task.parts"
            )


def check_contest(c: Composition, winner: str) -> None:
    """Check that the scores of one reward can be compared on all problems."""
    setting = f"eval.against.responses={c.config.eval.against.responses}"
    if c.environment is not None:
        raise UserError(
            f"{setting} are texts, and with an environment a response is an episode: leave it out"
        )
    for task in c.eval_task.mix:
        if not c.eval_rewards[winner].applies_to_task(task):
            raise UserError(
                f"{setting} compares the scores of one reward, and '{winner}' is not one of the "
                f"task {task}: name one of all tasks, eval.against.reward=<name>, or leave it out"
            )


def check_sampling(c: Composition) -> None:
    """Check that the engine can sample evaluations apart from training, if they are."""
    if c.config.eval.sampling.given and not c.engine.config.samples_apart:
        raise UserError(
            f"rollout={c.raw['rollout']['name']} samples evaluations as training: leave "
            "eval.sampling out, or use rollout=hf or vllm"
        )


def check_average(c: Composition) -> None:
    """Check that no anchor averages the weights of low-rank adapters, now or under a schedule."""
    if c.config.model.lora.r == 0 and not has_adapter(c.given.model):
        return
    anchor = c.parts.anchor
    planned = {place: scalar.extremes() for place, scalar in c.scalars.items()}
    settings = [
        {place.removeprefix("anchor."): extreme}
        for place, extremes in (planned | dict(c.schedule.fields())).items()
        if place.startswith("anchor.")
        for extreme in extremes
    ]
    configs = [anchor.config, *(anchor.config.model_copy(update=each) for each in settings)]
    if any(type(anchor)(config).averages_weights for config in configs):
        able = [name for name in names("anchor") if not build("anchor", name).averages_weights]
        raise UserError(
            f"anchor={c.raw['anchor']['name']} averages the policy's weights, and adapters "
            "(model.lora) have no average: that of their factors is not that of what they add; set "
            f"model.lora.r=0, or choose an anchor that copies the policy: {', '.join(able)}"
        )
