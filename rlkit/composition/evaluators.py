"""The evaluations of a run: of its task, and of what `eval.on` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.composition.composition import Composition
from rlkit.composition.data_checks import check_room
from rlkit.config.run import EMBEDDED, EvalConfig
from rlkit.errors import UserError
from rlkit.evaluation.contest import Contest, responses_of
from rlkit.evaluation.evaluator import Evaluates, Evaluator, Evaluators, keep_none
from rlkit.evaluation.records import AnswerFiles
from rlkit.interfaces import Reward
from rlkit.models.policy import Policy
from rlkit.ops import CHOSEN, REJECTED
from rlkit.rewards.judges import Judges
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import EVALUATION
from rlkit.runs.folder import EVALUATIONS
from rlkit.tasks.prompts import Prompts
from rlkit.training.micro_batches import Forwards, MicroBatches, default_tokens
from rlkit.training.pair_evaluation import PairEvaluator, preference

if TYPE_CHECKING:
    from rlkit.composition.session import RunScope


def contest_of(c: Composition, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> Contest | None:
    """What compares an evaluation's responses with `eval.against`; None if it names nothing.

    Raises UserError if a row has no reference response.
    """
    against = c.config.eval.against
    if against.responses is None:
        return None
    name = against.reward or c.judges.default
    return Contest(
        responses=responses_of(against.responses, rows),
        reward=name,
        rewards=RewardSet({name: c.eval_rewards[name]}, c.processes),
        tokenizer=tokenizer,
    )


def evaluators_of(c: Composition, policy: Policy, held_out: Prompts, run: RunScope) -> Evaluators:
    """An evaluator of the task's held-out problems and one of each of `eval.on`.

    The engine, which has not started, is told to make room for them. The process that writes the
    run's files writes the answers. Raises UserError for problems that the model cannot take.
    """
    folder = run.folder.path / EVALUATIONS

    def made(
        name: str,
        prompts: Prompts,
        config: EvalConfig,
        rewards: Mapping[str, Reward],
        judges: Judges,
    ) -> Evaluator:
        inside = Path(name.removeprefix(EVALUATION).strip("/"))
        files = AnswerFiles(folder / inside, c.config.eval.answers)
        return Evaluator(
            name=name,
            prompts=prompts,
            rewards=RewardSet(rewards, c.processes),
            engine=c.rollouts,
            tokenizer=policy.tokenizer,
            config=config,
            judges=judges,
            keep=files.keep if run.folder.writes else keep_none,
            say=run.say,
        )

    template = "none" if c.config.model.name == EMBEDDED else c.config.eval.template
    evaluators: list[Evaluates] = []
    if c.eval_rewards:
        own = made(EVALUATION, held_out, c.config.eval, c.eval_rewards, c.judges)
        own.contest = contest_of(c, policy.tokenizer, c.rows[1])
        evaluators.append(own)
    longest = held_out.longest
    for each in c.benchmarks:
        prompts = each.prompts(policy.tokenizer, template)
        check_room(prompts, policy, c.longest_evaluated)
        longest = max(longest, prompts.longest)
        evaluators.append(made(each.name, prompts, each.config, each.rewards, Judges(each.judge)))
    c.rollouts.reserve(longest, c.longest_evaluated)
    if not c.held_out_pairs:
        return Evaluators(evaluators)
    pairs, notes = held_out_pairs(c, policy)
    return Evaluators([*evaluators, *pairs], notes)


def held_out_pairs(c: Composition, policy: Policy) -> tuple[list[PairEvaluator], list[str]]:
    """What ranks the task's held-out preferences, and what to tell of those left out.

    Preferences that are longer than training takes are. Raises UserError if all are, and nothing
    else is evaluated.
    """
    rows, rollout = c.held_out_pairs, c.engine.config
    prompts = Prompts("eval", rows, policy.tokenizer, c.task.config.chat_template)
    groups = [
        preference(prompts[i], [prompts.encoder.response(row[key]) for key in (CHOSEN, REJECTED)])
        for i, row in enumerate(rows)
    ]
    short = [
        group
        for group in groups
        if len(group.prompt.ids) <= rollout.max_prompt_length
        and all(len(s.response_ids) <= rollout.max_completion_length for s in group.samples)
    ]
    told = [
        f"{len(groups) - len(short)} of {len(groups)} held-out preferences are left out of the "
        "evaluation: they are longer than rollout.max_prompt_length or max_completion_length."
    ]
    if not short and not c.eval_rewards:
        raise UserError(
            f"all {len(groups)} held-out preferences are longer than rollout.max_prompt_length="
            f"{rollout.max_prompt_length} or max_completion_length={rollout.max_completion_length},"
            " so that nothing would be evaluated; raise them"
        )
    if not short:
        return [], told
    micro = MicroBatches(
        c.config.train.micro_batch_tokens or default_tokens(policy.device),
        c.processes,
        policy.layout,
    )
    evaluator = PairEvaluator(
        groups=short,
        policy=policy,
        parts=c.parts,
        forwards=Forwards(micro, c.processes),
        alone=not c.eval_rewards,
    )
    return [evaluator], told if len(short) < len(groups) else []
