"""From a composition to a session: the model, the data and the engine are loaded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rlkit
from rlkit.composition.base_model import model_folder
from rlkit.composition.composition import Composition, Raw
from rlkit.composition.data_checks import check_data
from rlkit.composition.describe import user_sources
from rlkit.composition.evaluators import evaluators_of
from rlkit.composition.models_beside import model_opener
from rlkit.composition.scoring import rollout_opener
from rlkit.composition.turns import remember, template_words, tools_of
from rlkit.config.run import RunConfig
from rlkit.interfaces import RunContext, Task, Tracker
from rlkit.models.generation import mend_generation_config
from rlkit.models.load import given_policy, load_policy
from rlkit.models.memory import release
from rlkit.models.policy import Policy
from rlkit.rewards.judges import Judges
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.ahead import Ahead
from rlkit.rollout.head_probe import find_head
from rlkit.rollout.layout import choose_layout
from rlkit.rollout.partial import Partial
from rlkit.rollout.probe import check_trainer
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.shared import SharedRemote
from rlkit.rollout.source import OnDemand, Source
from rlkit.rollout.stops import check_stops
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.turns_partial import PartialTurns
from rlkit.runs.checkpoint import saved_trees
from rlkit.runs.folder import RunFolder
from rlkit.runs.generators import seed_generators
from rlkit.runs.stopping import StopRequest
from rlkit.stored.card import Card, template_hash, tokenizer_hash, weights_hash
from rlkit.stored.write import ROLLOUTS, RolloutWriter
from rlkit.tasks.prompts import Problems, Prompts
from rlkit.tasks.stream import Choice, PromptStream
from rlkit.training.collect import Collector
from rlkit.training.state import Session, forwards_of


def load_prompts(c: Composition, policy: Policy) -> tuple[Prompts, Prompts]:
    """Training and evaluation prompts.

    Their lengths are checked against max_prompt_length unless the task is the embedded model's.
    """
    train, held_out = c.rows
    return _prompts(c, "train", c.task, train, policy), _prompts(
        c, "eval", c.eval_task, held_out, policy
    )


def _prompts(
    c: Composition, name: str, task: Task, rows: Sequence[Mapping[str, Any]], policy: Policy
) -> Prompts:
    mode = task.config.chat_template
    prompts = Prompts(name, rows, policy.tokenizer, mode, tools_of(c))
    if task.embedded:
        return prompts
    return prompts.within(c.engine.config.max_prompt_length, task.config.overlong)


def source_of(c: Composition) -> Source:
    """Where a step's responses come from."""
    greedy = c.parts.advantage.needs_greedy
    if isinstance(c.rollouts, RemoteEngine | SharedRemote):
        return Ahead(c.rollouts, greedy=greedy)
    if c.engine.config.oversample > 0 and isinstance(c.rollouts, TurnsEngine):
        return PartialTurns(c.rollouts, greedy=greedy)
    if c.engine.config.oversample > 0:
        return Partial(c.rollouts, greedy=greedy)
    return OnDemand(c.rollouts, greedy=greedy)


def close(c: Composition) -> None:
    """Release the engine and the rewards' workers."""
    c.rollouts.close()
    for reward in c.every_reward:
        reward.close()


def close_models(c: Composition) -> None:
    """Let go of the models of a stage that is over; the next one needs their memory."""
    c.rollouts.close()
    c.parts.anchor.close()
    c.buffer.close()
    release()


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """What all stages of a run share."""

    raw: Raw
    """The whole run's configuration, saved in checkpoints."""
    folder: RunFolder
    trackers: Mapping[str, Tracker]
    stop: StopRequest
    sources: Mapping[str, str]
    """Hashes of the user's modules, saved too."""
    say: Callable[[str], None]
    """Tells the user."""

    @staticmethod
    def of(
        whole: Composition,
        parts: Sequence[Composition] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> RunScope:
        """The scope of a run, from its composition and its stages'; by default it says nothing."""
        return RunScope(
            raw=whole.raw,
            folder=RunFolder(Path(whole.config.output_dir), writes=whole.processes.is_main),
            trackers=whole.trackers,
            stop=StopRequest(),
            sources=user_sources([whole, *parts]),
            say=say,
        )


def policy_of(c: Composition, checkpoint: Path | None) -> Policy:
    """The policy of a checkpoint if there is one, else of model.name."""
    lora = c.config.model.lora.r > 0
    if c.given.model is not None:
        return given_policy(
            c.config.model,
            (c.given.model, c.given.tokenizer),
            c.engine.config.temperature,
            checkpoint=checkpoint,
            processes=c.processes,
        )
    folder: str | Path | None = None if lora else checkpoint
    return load_policy(
        c.config.model,
        folder or c.processes.on_main(lambda: model_folder(c)),
        c.engine.config.temperature,
        adapter=checkpoint if lora else None,
        processes=c.processes,
    )


def told_policy(
    c: Composition, run: RunScope, checkpoint: Path | None, policy: Policy | None
) -> Policy:
    """The policy given or loaded, fit for this composition; the user is told what is done to it."""
    if policy is None and c.given.model is None:
        run.say(f"Loading {checkpoint or c.config.model.name}")
    policy = policy or policy_of(c, checkpoint)
    if changed := mend_generation_config(policy.model):
        run.say(changed)
    check_stops(policy.tokenizer, c.engine.config.stop)
    return policy.at(c.engine.config.temperature, c.parts.anchor.config.device)


def probe_policy(policy: Policy, config: RunConfig, run: RunScope, checkpoint: Path | None) -> None:
    """Find out how the model's forwards are made, and that padding does not change them."""
    check_trainer(policy, config.seed)
    saved = forwards_of(checkpoint)
    policy.head = find_head(policy, config.seed) if saved.get("chunked", True) else None
    if policy.head is None:
        run.say(
            f"Log-probs take full logits: the output layer of a {type(policy.model).__name__} "
            "cannot be computed in parts."
        )
    if told := choose_layout(policy, config.train.packing, config.seed, saved.get("layout")):
        run.say(told)


def rollout_writer(c: Composition, policy: Policy) -> RolloutWriter | None:
    """What writes the run's responses, in the main process, if they are to be kept."""
    rollout, tokenizer = c.engine.config, policy.tokenizer
    if not rollout.save:
        return None
    weights = policy.weights(keep=c.processes.is_main) if c.processes.shards_weights else None
    if not c.processes.is_main:
        return None
    card = Card(
        rlkit_version=rlkit.__version__,
        model=c.config.model.name,
        weights=weights_hash(policy.model.state_dict() if weights is None else weights),
        tokenizer=tokenizer_hash(tokenizer),
        chat_template=template_hash(tokenizer),
        task=c.raw["task"]["name"],
        rewards=tuple(c.rewards),
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_completion_length=rollout.max_completion_length,
    )
    return RolloutWriter(Path(c.config.output_dir) / ROLLOUTS, card, tokenizer)


def prompt_stream(c: Composition, train: Prompts) -> PromptStream:
    """The training prompts in the order in which the run takes them."""
    rollout, chosen = c.engine.config, c.config.prompts
    judges = c.training_judges if chosen.reads_pass_rates else Judges("")
    return PromptStream(
        train,
        c.config.seed,
        rollout.num_generations,
        rollout.max_completion_length,
        rollout.max_prompt_length,
        Choice(config=chosen, shares=c.task.mix, judges=judges),
    )


def context_of(
    c: Composition, policy: Policy, train: Prompts, say: Callable[[str], None]
) -> RunContext:
    """What buffers and anchors are told about the run, besides their folder."""
    return RunContext(
        seed=c.config.seed,
        writes=c.processes.is_main,
        read_by_loss=c.read_by_loss,
        read_rows=c.take_file,
        problems=Problems(train),
        as_asked=train.encoder.asked,
        say=say,
        open_rollouts=rollout_opener(c, policy, train.encoder, say),
        open_model=model_opener(c, policy, say),
        max_completion_length=c.engine.config.max_completion_length,
    )


def open_session(
    c: Composition,
    run: RunScope,
    checkpoint: Path | None = None,
    policy: Policy | None = None,
    stage: int = 0,
) -> Session:
    """Load the model and the data, and bundle everything the loop needs.

    The model comes from the checkpoint, if there is one; a later stage passes its policy in. Each
    stage's buffer has a folder of its own: checkpoints of the stage before still need theirs.
    """
    config, processes = c.config, c.processes
    seed_generators(config.seed)
    policy = told_policy(c, run, checkpoint, policy)
    train, held_out = load_prompts(c, policy)
    check_data(c, policy, (train, held_out))
    notes = [*train.description(), *template_words(c, policy.tokenizer)]
    place = run.folder.path / "buffer" / (f"stage-{stage + 1}" if stage else "")
    context = replace(
        context_of(c, policy, train, notes.append),
        folder=place,
        saved_states=lambda: saved_trees(run.folder.path, "buffer"),
    )
    c.buffer.open(context)
    c.parts.anchor.open(context)
    probe_policy(policy, config, run, checkpoint)
    evaluator = evaluators_of(c, policy, held_out, run)
    notes += evaluator.notes
    remember(c)
    c.rollouts.start(policy, config.seed)
    return Session(
        config=config,
        raw=run.raw,
        policy=policy,
        parts=c.parts,
        buffer=c.buffer,
        schedule=c.schedule,
        engine=c.rollouts,
        collector=Collector(
            source_of(c),
            RewardSet(c.rewards, processes),
            c.parts.advantage,
            policy.tokenizer,
            tasks=c.task.mix,
        ),
        prompts=prompt_stream(c, train),
        evaluator=evaluator,
        run_folder=run.folder,
        trackers=run.trackers,
        sections=c.sections,
        scalars=c.scalars,
        stop=run.stop,
        rollout_writer=rollout_writer(c, policy),
        notes=notes,
        sources=run.sources,
    )
