"""Parts that do not fit together are told what to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlkit.composition.checks import check_needs, check_processes, check_scopes
from rlkit.composition.hydra_groups import import_before_compose
from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from tests.certain import HERE
from tests.compositions import composed

PAIRS = ("algorithm=online_dpo", "buffer=pairs", "buffer.path=pairs.jsonl")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("advantage=group_norm", "rollout.num_generations=1"), "rollout.num_generations to 2"),
        (("loss=grpo", "buffer=expert"), "adds demonstrations"),
        ((*PAIRS, "loss=grpo_behavior"), "a part of this composition reads its log-probs; choose"),
        ((*PAIRS, "train.lr_ess=1"), r"train.lr_ess reads its .*; set train.lr_ess=null"),
        (("task=jsonl",), "the embedded model only knows its own sums"),
        (("rollout.mode=ahead", "buffer=prompt_replay"), "use rollout.mode=sync"),
        (("rollout.oversample=0.5", "buffer=prompt_replay"), "use rollout.oversample=0"),
        (("rollout.mode=ahead", "model.lora.r=2"), "use rollout.mode=sync with model.lora"),
    ],
)
def test_parts_that_do_not_fit(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        composed(*overrides)


def test_a_scope_that_does_not_exist_is_refused() -> None:
    """It would count as that of a whole minibatch."""
    c = composed()
    c.parts.loss.scope = "tokens"  # type: ignore[assignment]
    with pytest.raises(UserError, match="the loss has the scope 'tokens'.*Did you mean 'token'"):
        check_scopes(c)


def test_what_fits_is_composed() -> None:
    composed("advantage=group_norm", "rollout.num_generations=2")
    composed("rollout.mode=ahead")
    composed(*PAIRS)
    assert not composed("loss=reinforce").parts.needs("behavior")
    assert composed("loss=reinforce", "train.lr_ess=0.5").parts.needs("behavior")
    composed("model.lora.r=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "anchor",
    [
        ("anchor=ema",),
        ("anchor=ema", "anchor.bias_corrected=true"),
        ("anchor=convex", "anchor.ema=0.5"),
        ("anchor=tr_dpo",),
        ("anchor=ppo_ewma", "loss=decoupled_ppo"),
        ("anchor=convex", "anchor.ema={kind: linear, start: 0, end: 1, steps: 10}"),
        ("anchor=periodic", "anchor.alpha={kind: linear, start: 1, end: 0.5, steps: 10}"),
    ],
)
def test_adapters_are_not_averaged(anchor: tuple[str, ...]) -> None:
    composed(*anchor)
    with pytest.raises(UserError, match="that copies the policy: base, convex, kl_convex, lagged"):
        composed(*anchor, "model.lora.r=2")


@pytest.mark.parametrize("anchor", ["base", "convex", "kl_convex", "lagged", "periodic"])
def test_copies_of_adapters_are_exact_and_stay_possible(anchor: str) -> None:
    composed(f"anchor={anchor}", "model.lora.r=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rewards", "judge"),
    [
        ("[overlong,exact]", "exact"),
        ("[exact,overlong]", "exact"),
        (f"[overlong,{HERE}:half]", "half"),
        (f"[{HERE}:half,exact]", "exact"),
        (f"[{HERE}:form,{HERE}:half]", "form"),
        ("[]", "arithmetic"),
    ],
)
def test_an_evaluation_counts_by_the_first_reward_that_marks_correctness(
    rewards: str, judge: str, own_registry: None
) -> None:
    c = composed(*import_before_compose([f"reward={rewards}"]))
    assert c.judges.default == judge


def test_the_reward_an_evaluation_counts_by_can_be_named() -> None:
    assert composed("reward=[exact,overlong]", "eval.reward=overlong").judges.default == "overlong"
    with pytest.raises(UserError, match=r"no such reward\. Did you mean 'exact'\?"):
        composed("reward=[exact,overlong]", "eval.reward=exat")
    with pytest.raises(UserError, match=r"no reward of this run marks correctness \(overlong\)"):
        composed("reward=[overlong]")


def test_distillation_needs_a_teacher() -> None:
    """The advantage's reference is one that is read, though there is no penalty."""
    made = composed("algorithm=mopd", "anchor.path=runs/grpo/checkpoint-20")
    assert made.read_by_loss == frozenset({"teacher"}) and made.parts.anchor.references(1) == ()
    with pytest.raises(UserError, match=r"the advantage needs the reference 'teacher'.*: none\)"):
        composed("algorithm=mopd", "anchor=none")


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("behaviour", "the loss needs 'behaviour', which does not exist. Did you mean 'behavior'?"),
        ("anchor:teacher", "needs the reference 'teacher', which this anchor does not hold"),
        ("anchor:", "the loss needs 'anchor:', which does not exist"),
        ("base", "Known: behavior, prox, entropy, prompt_hidden, anchor:<name>"),
    ],
)
def test_a_need_that_nothing_meets_is_told(needs: str, said: str) -> None:
    c = composed("loss=ppo")
    c.parts.loss.needs = frozenset({"behavior", needs})
    with pytest.raises(UserError) as caught:
        check_needs(c)
    assert said in str(caught.value)


def test_corrections_and_advantages_are_asked_too() -> None:
    c = composed("loss=ppo", "correction=[tis]")
    check_needs(c)
    c.parts.corrections[0][1].needs = frozenset({"proxy"})
    with pytest.raises(UserError, match="the correction 'tis' needs 'proxy'"):
        check_needs(c)


def test_prompts_hidden_states_are_for_losses_alone() -> None:
    c = composed("loss=ppo", "correction=[tis]")
    c.parts.corrections[0][1].needs = frozenset({"prompt_hidden"})
    with pytest.raises(UserError, match="the correction 'tis' needs 'prompt_hidden', which losses"):
        check_needs(c)
    c = composed("loss=ppo")
    c.parts.advantage.needs = frozenset({"prompt_hidden"})
    with pytest.raises(UserError, match="the advantage needs 'prompt_hidden', which losses alone"):
        check_needs(c)


@pytest.mark.parametrize("name", ["spo", "gae_vtrace"])
def test_an_anchor_cannot_replace_log_probs_that_must_be_the_policys_own(name: str) -> None:
    composed("loss=decoupled_ppo", "anchor=ppo_ewma")
    said = f"advantage={name} compares .* anchor=ppo_ewma puts another"
    with pytest.raises(UserError, match=said):
        composed("loss=decoupled_ppo", f"advantage={name}", "anchor=ppo_ewma")


class Several(Processes):
    """Ranks as a launch makes them."""

    def __init__(self, *, shards: bool) -> None:
        self.world_size, self.shards_weights, self.owns_precision = 2, shards, True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("model.lora.r=2",), "model.lora"),
        (("advantage=gae",), "an advantage with a critic"),
        (("rollout.sync_every=2",), "rollout.sync_every above 1"),
        (("rollout=layer_skip",), "rollout=layer_skip"),
        (("model.autocast=bfloat16",), "model.autocast"),
        (("train.optimizer=muon",), "train.optimizer=muon"),
        (("train.lr_scale={layers:2}",), "train.lr_scale"),
        (("train.weight_decay=0.1",), "train.weight_decay"),
    ],
)
def test_what_sharded_weights_cannot_do(overrides: tuple[str, ...], what: str) -> None:
    c = composed("loss=ppo", *overrides)
    check_processes(replace(c, processes=Several(shards=False)))
    with pytest.raises(UserError, match=f"{what} is not possible with processes launched"):
        check_processes(replace(c, processes=Several(shards=True)))


def test_several_processes_have_a_device_each() -> None:
    c = composed()
    model = c.config.model.model_copy(update={"device": "cuda:1"})
    c = replace(c, config=c.config.model_copy(update={"model": model}))
    check_processes(c)
    with pytest.raises(UserError, match="leave it at auto"):
        check_processes(replace(c, processes=Several(shards=False)))


def test_a_teacher_is_on_each_processs_own_device_too() -> None:
    c = composed("loss=ppo", "anchor=teacher", "anchor.device=cuda:1")
    check_processes(c)
    with pytest.raises(UserError, match=r"anchor\.device=cuda:1 is one device, .* at null"):
        check_processes(replace(c, processes=Several(shards=False)))
    for device in ("cpu", "cuda"):
        held = composed("loss=ppo", "anchor=teacher", f"anchor.device={device}")
        check_processes(replace(held, processes=Several(shards=False)))


def test_the_reward_that_decides_who_wins_is_one_of_the_evaluations() -> None:
    against = "eval.against.responses=solution"
    composed("reward=[exact]", against, "eval.against.reward=exact")
    with pytest.raises(UserError, match=r"eval\.against\.reward=exat.*Did you mean 'exact'"):
        composed("reward=[exact]", against, "eval.against.reward=exat")


OFFLINE = (
    "task=preference",
    "task.path=pkg://rlkit/tasks/revised_sums.jsonl",
    "buffer=pairs",
    "algorithm=online_dpo",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("eval.against.responses=chosen", r"eval\.against\.responses=chosen is about answers"),
        ("eval.reward=exact", r"eval\.reward=exact is about answers.*no reward"),
        ("prompts.order=target", "this run has no reward: leave them out"),
        ("prompts.drop_solved=2", "this run has no reward: leave them out"),
    ],
)
def test_a_run_without_rewards_judges_nothing(override: str, said: str) -> None:
    composed(*OFFLINE)
    with pytest.raises(UserError, match=said) as caught:
        composed(*OFFLINE, override)
    assert "\n" not in str(caught.value)


def test_pass_rates_need_a_judge_among_the_rewards_that_are_trained_on() -> None:
    """Advice to choose by eval.reward would not help: that is of the evaluation alone."""
    chosen = ("reward=[missing_eos,exact]", "reward.exact.evaluation_only=true")
    composed(*chosen)
    with pytest.raises(
        UserError, match=r"\(missing_eos\) and is trained on.*prompts\.order"
    ) as said:
        composed(*chosen, "prompts.order=target")
    assert "eval.reward" not in str(said.value)


def test_who_wins_is_decided_by_one_reward_of_all_tasks_and_not_on_episodes(
    own_registry: None,
) -> None:
    """By the reward of one task its win rate would be called that of the mix."""
    against = "eval.against.responses=solution"
    mix = ("task=mixed", "task.parts={a: {kind: arithmetic}, b: {kind: arithmetic}}", against)
    with pytest.raises(UserError, match="'a/arithmetic' is not one of the task b: name one of all"):
        composed(*mix)
    composed(*mix, "reward=[exact]")
    with pytest.raises(UserError, match="with an environment a response is an episode"):
        composed(*import_before_compose(["environment=tests.rollout.echo:Echo", against]))
