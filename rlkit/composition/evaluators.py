"""The evaluations of a run: of its task, and of what `eval.on` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlkit.composition.composition import Composition
from rlkit.composition.data_checks import check_room
from rlkit.config.run import EMBEDDED, EvalConfig
from rlkit.evaluation.evaluator import Evaluates, Evaluator, Evaluators, keep_none
from rlkit.evaluation.records import AnswerFiles
from rlkit.interfaces import Reward
from rlkit.models.policy import Policy
from rlkit.ops import CHOSEN, REJECTED
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout.base import EVALUATION
from rlkit.runs.folder import EVALUATIONS
from rlkit.tasks.prompts import Prompts
from rlkit.training.micro_batches import Forwards, MicroBatches, default_tokens
from rlkit.training.pair_evaluation import PairEvaluator, preference

if TYPE_CHECKING:
    from rlkit.composition.session import RunScope


def evaluators_of(c: Composition, policy: Policy, held_out: Prompts, run: RunScope) -> Evaluators:
    """An evaluator of the task's held-out problems and one of each of `eval.on`.

    The engine, which has not started, is told to make room for them. The process that writes the
    run's files writes the answers. Raises UserError for problems that the model cannot take.
    """
    folder = run.folder.path / EVALUATIONS

    def made(
        name: str, prompts: Prompts, config: EvalConfig, rewards: Mapping[str, Reward], judge: str
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
            judge=judge,
            keep=files.keep if run.folder.writes else keep_none,
            say=run.say,
        )

    template = "none" if c.config.model.name == EMBEDDED else c.config.eval.template
    evaluators: list[Evaluates] = []
    if (judge := c.correctness) is not None:
        evaluators.append(made(EVALUATION, held_out, c.config.eval, c.eval_rewards, judge))
    longest = held_out.longest
    for each in c.benchmarks:
        prompts = each.prompts(policy.tokenizer, template)
        check_room(prompts, policy, c.longest_evaluated)
        longest = max(longest, prompts.longest)
        evaluators.append(made(each.name, prompts, each.config, each.rewards, each.judge))
    c.rollouts.reserve(longest, c.longest_evaluated)
    if not c.held_out_pairs:
        return Evaluators(evaluators)
    pairs, notes = held_out_pairs(c, policy)
    return Evaluators([*evaluators, *pairs], notes)


def held_out_pairs(c: Composition, policy: Policy) -> tuple[list[PairEvaluator], list[str]]:
    """What ranks the task's held-out preferences, and what to tell of those left out.

    Preferences that are longer than training takes are.
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
