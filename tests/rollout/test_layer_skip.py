"""The policy less some of its layers: what it samples, leaves alone and refuses."""

from __future__ import annotations

import copy
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import ModuleList
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from rlkit.batch import LossBatch, PolicyTerms, Request
from rlkit.config.run import EvalConfig, LoraConfig
from rlkit.errors import UserError
from rlkit.evaluation.evaluator import Evaluator
from rlkit.interfaces import Tokens
from rlkit.models.lora import add_adapter
from rlkit.models.policy import Policy
from rlkit.registry import build
from rlkit.rewards.function import reward_class
from rlkit.rewards.scoring import RewardSet
from rlkit.rollout import layer_skip
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.layer_skip import (
    SEED,
    LayerSkipConfig,
    LayerSkipRollout,
    reduced,
    skipped_layers,
)
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.sampling import KEPT
from tests.architectures import tiny_policy
from tests.cli import metrics, run, without_times
from tests.end_to_end.test_kills import COMMON, weights
from tests.steps import has_one, move
from tests.tiny import CHARACTERS, make_policy, make_prompts, make_tokenizer

pytestmark = pytest.mark.slow

TEXTS = ["1+2=", "12+345=", "7=", "1+2+3+4=", "99="]
LAYERS = 6
ANY: dict[str, Any] = {"skip": 0.5, "keep_first": 0, "keep_last": 0}
STREAM = ("rollout", 1, 0)


def deep_policy(**settings: Any) -> Policy:
    return make_policy(num_hidden_layers=LAYERS, **settings)


def sliding_policy() -> Policy:
    """Two kinds of layers: 0, 2 and 4 see everything, 1, 3 and 5 a window of four tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(CHARACTERS) + 2,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=LAYERS,
                num_attention_heads=2,
                num_key_value_heads=2,
                use_sliding_window=True,
                sliding_window=4,
                layer_types=["full_attention", "sliding_attention"] * (LAYERS // 2),
                initializer_range=0.2,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
    return Policy(model.train(False), make_tokenizer(), 1.0)


def engine(policy: Policy, **fields: Any) -> LayerSkipRollout:
    made = LayerSkipRollout(
        LayerSkipConfig.model_validate({"max_completion_length": 12, **ANY, **fields})
    )
    made.start(policy, seed=3)
    return made


def requests(policy: Policy, n: int = 4) -> list[Request]:
    return [Request(prompt=p, n=n) for p in make_prompts(policy, TEXTS)]


def flat(answers: list[list[Generation]]) -> list[Generation]:
    return [g for group in answers for g in group]


def texts(answers: list[list[Generation]]) -> list[list[int]]:
    return [g.response_ids.tolist() for g in flat(answers)]


def seed_of(answers: list[list[Generation]]) -> int:
    (seed,) = {g.extras[SEED] for g in flat(answers)}
    assert isinstance(seed, float) and seed.is_integer() and 0 <= seed < 2**32
    return int(seed)


def without_layers(policy: Policy, skipped: list[int]) -> Policy:
    """A copy whose list of layers lacks some; without a cache their numbers do not matter."""
    smaller = copy.deepcopy(policy)
    inner: Any = smaller.model.model
    kept = [i for i in range(LAYERS) if i not in skipped]
    inner.layers = ModuleList([inner.layers[i] for i in kept])
    inner.config.num_hidden_layers = len(kept)
    if getattr(inner.config, "layer_types", None):
        inner.config.layer_types = [inner.config.layer_types[i] for i in kept]
    return smaller


def log_probs(policy: Policy, asked: list[Request], answers: list[list[Generation]]) -> Tensor:
    prompts = [r.prompt.ids for r in asked for _ in range(r.n)]
    return policy.logp(Tokens.of(prompts, [g.response_ids for g in flat(answers)]))


def check_log_probs(policy: Policy, made: LayerSkipRollout, stream: tuple[str, int, int]) -> None:
    asked = requests(policy)
    answers = made.generate(GenerationCall(asked, stream))
    smaller = without_layers(policy, skipped_layers(LAYERS, made.config, seed_of(answers)))
    for row, g in zip(log_probs(smaller, asked, answers), flat(answers), strict=True):
        torch.testing.assert_close(row[: len(g.logp)], g.logp, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [deep_policy, sliding_policy])
@pytest.mark.parametrize("skip", [0.17, 0.5, 0.67])
def test_behavior_log_probs_are_those_of_the_model_without_the_seeds_layers(
    make: Any, skip: float
) -> None:
    """With a cache as without one, whichever layers are left out, the first too."""
    policy = make()
    made = engine(policy, skip=skip, generation_batch_size=9)
    firsts = set()
    for step in range(1, 9):
        check_log_probs(policy, made, ("rollout", step, 0))
        seed = seed_of(made.generate(GenerationCall(requests(policy), ("rollout", step, 0))))
        firsts.add(0 in skipped_layers(LAYERS, made.config, seed))
    assert firsts == {True, False}, "the first layer was left out and was not"


def test_log_probs_are_at_the_rollouts_temperature() -> None:
    policy = deep_policy(temperature=0.7)
    check_log_probs(policy, engine(policy, temperature=0.7), STREAM)


def test_samples_are_not_those_of_the_whole_policy() -> None:
    policy = deep_policy()
    asked = requests(policy)
    made = engine(policy)
    answers = made.generate(GenerationCall(asked, STREAM))
    own = log_probs(policy, asked, answers)
    gap = max(
        float((row[: len(g.logp)] - g.logp).abs().max())
        for row, g in zip(own, flat(answers), strict=True)
    )
    assert gap > 0.1 and not made.matches_trainer


def state_of(policy: Policy) -> dict[str, Any]:
    """Everything that leaving out layers could disturb."""
    inner: Any = policy.model.model
    return {
        "weights": {name: value.clone() for name, value in policy.model.state_dict().items()},
        "places": [(name, id(p), p.data_ptr()) for name, p in policy.model.named_parameters()],
        "trained": [p.requires_grad for p in policy.model.parameters()],
        "layers": [id(layer) for layer in inner.layers],
        "numbers": [layer.self_attn.layer_idx for layer in inner.layers],
        "config": policy.model.config.to_dict(),
        "modes": [module.training for module in policy.model.modules()],
    }


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = before.pop("weights"), after.pop("weights")
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert before == after


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sync_every", [1, 2])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_policy_is_as_before_after_a_generation(
    training: bool, sync_every: int, error: type[BaseException] | None, monkeypatch: Any
) -> None:
    policy = sliding_policy()
    policy.model.train(training)
    made = engine(policy, sync_every=sync_every)
    before, model = state_of(policy), made.model
    if error is None:
        made.generate(GenerationCall(requests(policy), STREAM))
    else:

        def fail(self: object) -> None:
            raise error("in the middle")

        monkeypatch.setattr("rlkit.rollout.hf_batch.HFBatch.run", fail)
        with pytest.raises(error, match="in the middle"):
            made.generate(GenerationCall(requests(policy), STREAM))
    assert made.model is model
    check_same(before, state_of(policy))


def test_the_reduced_model_has_the_policys_weights_and_no_others() -> None:
    policy = deep_policy()
    inner: Any = policy.model.model
    smaller: Any = reduced(policy.model, [0, 3])
    assert len(smaller.model.layers) == smaller.config.num_hidden_layers == LAYERS - 2
    assert [layer.self_attn.layer_idx for layer in smaller.model.layers] == [0, 1, 2, 3]
    for place, number in enumerate([1, 2, 4, 5]):
        ours, theirs = smaller.model.layers[place], inner.layers[number]
        assert ours is not theirs
        assert [id(p) for p in ours.parameters()] == [id(p) for p in theirs.parameters()]
    assert smaller.lm_head.weight is policy.model.lm_head.weight


def test_a_stream_repeats_its_layers_and_another_has_others() -> None:
    policy = deep_policy()

    def draw(step: int, call: int = 0) -> tuple[int, list[list[int]]]:
        answers = engine(policy).generate(GenerationCall(requests(policy), ("rollout", step, call)))
        return seed_of(answers), texts(answers)

    assert draw(1) == draw(1)
    seeds = [draw(1)[0], draw(2)[0], draw(1, 1)[0]]
    assert len(set(seeds)) == 3
    config = engine(policy).config
    drawn = {tuple(skipped_layers(LAYERS, config, seed)) for seed in seeds}
    assert len(drawn) > 1 and all(len(layers) == 3 for layers in drawn)


def test_every_subset_of_the_layers_that_may_be_skipped_is_equally_likely() -> None:
    """0.4 of 6 rounds to 2 of layers 1 to 4: six subsets, each in a sixth of 3000 draws."""
    config = LayerSkipConfig(skip=0.4)
    drawn = Counter(tuple(skipped_layers(6, config, seed)) for seed in range(3000))
    assert set(drawn) == {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in drawn.values())


def test_how_many_layers_are_skipped_by_hand() -> None:
    for share, layers, count in [(0.1, 30, 3), (0.1, 28, 3), (0.1, 24, 2), (0.01, 30, 1)]:
        assert len(skipped_layers(layers, LayerSkipConfig(skip=share), 0)) == count
    assert skipped_layers(2, LayerSkipConfig(**ANY), 0) in ([0], [1])
    assert skipped_layers(4, LayerSkipConfig(skip=0.5, keep_first=2, keep_last=0), 0) == [2, 3]
    assert skipped_layers(4, LayerSkipConfig(skip=0.5, keep_first=0, keep_last=2), 0) == [0, 1]


@pytest.mark.parametrize("stream", [(name, 4, 0) for name in ("eval", "eval-greedy", "eval-math")])
def test_an_evaluation_is_of_the_whole_policy(stream: tuple[str, int, int]) -> None:
    policy = deep_policy()
    whole = HFRollout(HFConfig(max_completion_length=12))
    whole.start(policy, seed=3)
    answers = engine(policy).generate(GenerationCall(requests(policy), stream))
    assert texts(answers) == texts(whole.generate(GenerationCall(requests(policy), stream)))
    assert not any(g.extras for g in flat(answers))


def test_the_evaluators_streams_are_those_of_the_whole_policy() -> None:
    policy, names = deep_policy(), list[str]()

    class Noting(LayerSkipRollout):
        def generate(self, call: GenerationCall) -> Any:
            names.append(call.stream[0])
            return super().generate(call)

    made = Noting(LayerSkipConfig(max_completion_length=2, **ANY))
    made.start(policy, seed=3)
    rewards = RewardSet({"one": reward_class(has_one)()})
    once = EvalConfig(samples=1, k=1)
    Evaluator(
        prompts=make_prompts(policy, TEXTS),
        rewards=rewards,
        engine=made,
        tokenizer=policy.tokenizer,
        config=once,
    ).run(1)
    assert all(GenerationCall([], (name, 1, 0)).evaluates for name in names)
    assert len(names) == 2 and not GenerationCall([], ("rollout", 1, 0)).evaluates


def test_a_greedy_response_is_the_whole_policys() -> None:
    policy = deep_policy()
    whole = HFRollout(HFConfig(max_completion_length=12))
    whole.start(policy, seed=3)
    stream = ("greedy", 1, 0)
    ours = engine(policy).generate(GenerationCall(requests(policy, 1), stream, greedy=True))
    assert texts(ours) == texts(
        whole.generate(GenerationCall(requests(policy, 1), stream, greedy=True))
    )


def test_without_skipping_it_is_the_hf_engine_bit_for_bit() -> None:
    policy = deep_policy()
    whole = HFRollout(HFConfig(max_completion_length=12))
    whole.start(policy, seed=3)
    made = engine(policy, skip=0.0)
    ours, theirs = (e.generate(GenerationCall(requests(policy), STREAM)) for e in (made, whole))
    assert made.matches_trainer and texts(ours) == texts(theirs)
    for mine, other in zip(flat(ours), flat(theirs), strict=True):
        assert torch.equal(mine.logp, other.logp) and mine.extras == other.extras == {}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_policy_in_training_mode_generates_the_same(checkpointing: bool) -> None:
    """Dropout is off while it samples, and checkpointing does not take the cache away."""
    resting, training = (deep_policy(attention_dropout=0.5) for _ in range(2))
    training.model.train()
    if checkpointing:
        training.model.gradient_checkpointing_enable()
    expected = engine(resting).generate(GenerationCall(requests(resting), STREAM))
    found = engine(training).generate(GenerationCall(requests(training), STREAM))
    assert texts(found) == texts(expected)
    assert all(
        torch.equal(a.logp, b.logp) for a, b in zip(flat(found), flat(expected), strict=True)
    )
    assert training.model.training


def test_weights_that_lag_are_those_of_the_last_sync() -> None:
    policy = deep_policy()
    made = engine(policy, sync_every=4)
    start = copy.deepcopy(policy)
    move(policy)
    check_log_probs(start, made, STREAM)
    made.sync(5)
    check_log_probs(policy, made, STREAM)


def test_shared_weights_are_followed_as_they_learn() -> None:
    policy = deep_policy()
    made = engine(policy)
    before = made.generate(GenerationCall(requests(policy), STREAM))
    move(policy)
    check_log_probs(policy, made, STREAM)
    assert texts(made.generate(GenerationCall(requests(policy), STREAM))) != texts(before)


def test_processes_that_share_the_requests_draw_the_same_layers() -> None:
    policy = deep_policy()
    whole = engine(policy).generate(GenerationCall(requests(policy), STREAM))
    shares = [slice(0, 2), slice(2, 5)]
    parts = [
        engine(policy).generate(GenerationCall(requests(policy), STREAM, part=part))
        for part in shares
    ]
    assert {seed_of(part) for part in parts} == {seed_of(whole)}
    assert texts(parts[0] + parts[1]) == texts(whole)


def test_a_seed_stands_beside_other_extras_and_travels_between_processes() -> None:
    policy = deep_policy()
    answers = engine(policy, top_k=3).generate(GenerationCall(requests(policy), STREAM))
    assert all(g.extras.keys() == {KEPT, SEED} for g in flat(answers))
    assert [g.extras[SEED] for g in unpack(pack(flat(answers)))] == [seed_of(answers)] * 20


def test_adapters_are_part_of_the_reduced_policy() -> None:
    policy = deep_policy()
    plain = texts(engine(policy).generate(GenerationCall(requests(policy), STREAM)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = add_adapter(policy.model, LoraConfig(r=2, target_modules=("q_proj", "up_proj")))
    adapted = Policy(model.train(False), policy.tokenizer, 1.0)
    made = engine(adapted)
    assert texts(made.generate(GenerationCall(requests(policy), STREAM))) == plain, (
        "they add nothing at first"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    assert texts(made.generate(GenerationCall(requests(policy), STREAM))) != plain


@pytest.mark.parametrize(
    ("layers", "fields", "words"),
    [
        (2, {"keep_last": 2}, "skips 1 of the model's 2 layers.*only 0 may be"),
        (1, {}, "skips 1 of the model's 1 layers.*only 0 may be"),
        (6, {"skip": 0.9, "keep_first": 2}, "keep_first=2 and rollout.keep_last=0"),
        (6, {"skip": 0.99, "keep_first": 0, "keep_last": 0}, "skips 6 .*only 5 may be"),
        (6, {"keep_first": 9}, "rollout.keep_first=9.*only 0 may be; lower"),
    ],
)
def test_too_few_layers_are_refused_at_the_start(
    layers: int, fields: dict[str, Any], words: str
) -> None:
    policy = make_policy(num_hidden_layers=layers)
    made = LayerSkipRollout(LayerSkipConfig(**fields))
    with pytest.raises(UserError, match=words):
        made.start(policy, seed=3)


def test_a_model_whose_layers_share_a_cache_is_refused() -> None:
    policy = deep_policy()
    policy.model.config.num_kv_shared_layers = 2
    with pytest.raises(UserError, match="LlamaForCausalLM; use rollout=hf"):
        engine(policy)


def test_which_layers_a_hybrid_may_lose_is_known_at_the_start() -> None:
    """Jamba's kinds follow from their places, Qwen's are listed, and Mamba has one."""
    with pytest.raises(UserError, match="JambaForCausalLM; use rollout=hf"):
        engine(tiny_policy("jamba"))
    for kind in ("qwen3_next", "mamba"):
        engine(tiny_policy(kind))


def test_a_policy_without_some_layers_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the reduced model alone goes wrong: it reads other tokens once it has a cache."""

    def forgetful(model: Any, skipped: Any) -> Any:
        smaller: Any = reduced(model, skipped)
        forward = smaller.forward

        def late(**inputs: Any) -> Any:
            if "past_key_values" in inputs:
                inputs["input_ids"] = torch.full_like(inputs["input_ids"], 3)
            return forward(**inputs)

        smaller.forward = late
        return smaller

    policy = deep_policy()
    monkeypatch.setattr(layer_skip, "reduced", forgetful)
    HFRollout(HFConfig()).start(policy, 3)
    with pytest.raises(UserError, match="LlamaForCausalLM: its log-probs differ"):
        engine(policy)


def test_a_model_with_another_name_for_its_layers_works() -> None:
    """GPT-2 calls them `h`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=16, n_embd=32, n_layer=LAYERS, n_head=2, initializer_range=0.2
        )
        model = GPT2LMHeadModel(config).train(False)
    policy = Policy(model, make_tokenizer(), 1.0)
    made = engine(policy)
    asked = requests(policy)
    answers = made.generate(GenerationCall(asked, STREAM))
    smaller = copy.deepcopy(policy)
    inner: Any = smaller.model.transformer
    for number in reversed(skipped_layers(LAYERS, made.config, seed_of(answers))):
        del inner.h[number]
    for row, g in zip(log_probs(smaller, asked, answers), flat(answers), strict=True):
        torch.testing.assert_close(row[: len(g.logp)], g.logp, atol=1e-5, rtol=0)


def test_a_response_is_not_continued_without_other_layers() -> None:
    with pytest.raises(ValueError, match="oversample"):
        LayerSkipConfig(oversample=0.5)


def test_the_retrace_weight_by_hand() -> None:
    """prox / behavior = 1/2, 2 and 1 give weights 1/2, 1 and 1."""
    behavior = torch.tensor([[0.5, 0.25, 0.1]]).log()
    prox = torch.tensor([[0.25, 0.5, 0.1]]).log()
    batch = LossBatch(
        mask=torch.ones(1, 3, dtype=torch.bool),
        advantage=torch.ones(1, 3),
        behavior_logp=behavior,
        prox_logp=prox,
        anchor_logp={},
        reward=torch.ones(1),
        group=torch.zeros(1, dtype=torch.int64),
        age=torch.zeros(1, dtype=torch.int64),
        expert=torch.zeros(1, dtype=torch.bool),
        truncated=torch.zeros(1, dtype=torch.bool),
    )
    terms = PolicyTerms(logp=prox, entropy=torch.zeros(1, 3))
    weight = build("correction", "tis", is_max=1.0)(terms, batch).weight
    torch.testing.assert_close(weight, torch.tensor([[0.5, 1.0, 1.0]]))


@pytest.mark.parametrize(
    ("name", "ratio_to", "is_max"),
    [("base", "prox", None), ("practical", "behavior", None), ("retrace", "prox", 1.0)],
)
def test_the_shipped_experiments_differ_in_how_they_treat_the_bias(
    name: str, ratio_to: str, is_max: float | None, tmp_path: Path
) -> None:
    chosen = f"+experiment=nested_reft_{name}"
    config = yaml.safe_load(run(chosen, "--cfg", "job", cwd=tmp_path).out)
    assert (config["loss"]["name"], config["loss"]["ratio_to"]) == ("grpo", ratio_to)
    assert config["rollout"]["name"] == "layer_skip"
    corrections = config.get("correction", {})
    assert [c["is_max"] for c in corrections.values()] == ([is_max] if is_max else [])
    for change in ("rollout=hf", "rollout=layer_skip", "correction=[]", "algorithm=remix"):
        composed = run(chosen, change, "dry_run=true", cwd=tmp_path)
        assert composed.status == 0, composed.err


def skipping_run(folder: Path, *arguments: str, kill: str = "", resume: str = "never") -> Path:
    chosen = ("+experiment=nested_reft_retrace", "buffer=fifo", f"output_dir={folder}")
    result = run(
        *COMMON, *chosen, f"resume={resume}", *arguments, cwd=folder.parent, env={"KILL": kill}
    )
    assert result.status == (-signal.SIGKILL if kill else 0), result.err
    return folder


def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """The layers follow from the step, so a resumed run skips the same ones."""
    whole, folder = skipping_run(tmp_path / "whole"), tmp_path / "out"
    for kill in ("reward:4", "reward:4"):
        skipping_run(folder, kill=kill, resume="auto")
    skipping_run(folder, resume="auto")
    rows = without_times(metrics(folder))
    assert rows == without_times(metrics(whole))
    assert all(torch.equal(value, weights(folder)[k]) for k, value in weights(whole).items())
    gaps = [row["off_policy/engine_kl"] for row in rows if "policy/loss" in row]
    assert len(gaps) == 6 and min(gaps) > 0.05, "the reduced model is not the policy"
    stored = (folder / "checkpoint-6" / "state" / "buffer.json").read_text()
    assert SEED in stored


def test_without_skipping_a_run_is_one_with_hf(tmp_path: Path) -> None:
    more = ("train.steps=2", "correction=[]")
    skip = skipping_run(tmp_path / "skip", *more, "rollout.skip=0")
    whole = skipping_run(tmp_path / "hf", *more, "rollout=hf")
    assert without_times(metrics(skip)) == without_times(metrics(whole))


def test_a_run_evaluates_the_whole_policy(tmp_path: Path) -> None:
    more = ("train.steps=1", "eval.problems=32")
    rows = [
        without_times(metrics(skipping_run(tmp_path / name, *more, f"rollout={name}")))
        for name in ("layer_skip", "hf")
    ]
    assert rows[0][0] == rows[1][0] and rows[0][1] != rows[1][1]


def test_the_ends_are_kept_where_the_model_has_layers_enough() -> None:
    """Two layers have no middle: either may be skipped; of six the first and last stay."""
    default = LayerSkipConfig()
    assert {tuple(skipped_layers(2, default, seed)) for seed in range(20)} == {(0,), (1,)}
    assert {skipped_layers(6, default, seed)[0] for seed in range(80)} == {1, 2, 3, 4}
    assert len(skipped_layers(6, LayerSkipConfig(skip=0.9), 0)) == 5
