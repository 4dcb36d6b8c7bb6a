"""vLLM in the trainer's process: its log-probs, its samples, and weights that arrive."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlkit.batch import Request
from rlkit.config.sampling import Sampling
from rlkit.errors import UserError
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.vllm.engine import VLLMConfig, VLLMRollout
from rlkit.rollout.vllm.probe import LENGTH, Evidence
from rlkit.rollout.vllm.sampling import Asker
from rlkit.rollout.vllm.worker import Arrivals
from rlkit.rollout.weights import checkpoint_weights
from tests.cli import SMALL, metrics, run
from tests.end_to_end.test_processes import launch
from tests.rollout.models import change, cut, largest_difference, make_policy, requests
from tests.tiny import make_prompts

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
CHI_SQUARE_16_OF_1000 = 37.7
"""A chi-square of 15 degrees of freedom is above it once in a thousand times."""


def configured(**fields: object) -> VLLMConfig:
    small = {"temperature": 0.7, "max_completion_length": 12, "kv_cache_gb": 0.1}
    return VLLMConfig.model_validate({**small, **fields})


def make_engine(policy: Policy, **fields: object) -> VLLMRollout:
    pytest.importorskip("vllm")
    made = VLLMRollout(configured(**fields))
    made.start(policy, seed=3)
    return made


@pytest.fixture(scope="module")
def shared() -> Iterator[VLLMRollout]:
    """A model with a tied head at temperature 0.7."""
    made = make_engine(make_policy(temperature=0.7), top_k=3)
    yield made
    made.close()


@pytest.fixture
def engine(shared: VLLMRollout) -> Iterator[VLLMRollout]:
    """The shared engine without truncation; a test may change its settings and weights."""
    weights = {name: w.clone() for name, w in shared.policy.model.state_dict().items()}
    shared.config = configured()
    yield shared
    shared.policy.model.load_state_dict(weights)
    shared.sync(1)


def texts(policy: Policy, answers: Sequence[Sequence[Generation]]) -> list[str]:
    return [
        str(policy.tokenizer.decode(g.response_ids, skip_special_tokens=True))
        for group in answers
        for g in group
    ]


def test_its_log_probs_are_those_of_a_full_forward_at_the_temperature(engine: VLLMRollout) -> None:
    asked = requests(engine.policy)
    answers = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    assert [len(group) for group in answers] == [4] * len(asked)
    assert largest_difference(engine.policy, asked, answers) < 5e-5
    assert not any(g.extras for group in answers for g in group)


def test_a_stream_repeats_and_another_differs(engine: VLLMRollout) -> None:
    def draw(step: int, asked: Sequence[Request]) -> list[list[int]]:
        answers = engine.generate(GenerationCall(asked, ("t", step, 0)))
        return [g.response_ids.tolist() for group in answers for g in group]

    asked = requests(engine.policy)
    first = draw(1, asked)
    assert draw(1, asked) == first
    assert draw(1, asked[:2]) == first[:8]
    assert draw(2, asked) != first
    assert len({tuple(ids) for ids in first[:4]}) == 4


def test_responses_stop_at_the_end_token_and_say_so(engine: VLLMRollout) -> None:
    answers = engine.generate(GenerationCall(requests(engine.policy, 16), ("t", 1, 0)))
    flat = [g for group in answers for g in group]
    assert {g.finish_reason for g in flat} == {"stop", "length"}
    for g in flat:
        ids = g.response_ids.tolist()
        assert 1 not in ids[:-1]
        assert (ids[-1] == 1) == (g.finish_reason == "stop")
        assert len(ids) == 12 or g.finish_reason == "stop"
        assert g.policy_version.tolist() == [1] * len(ids)
        assert g.logp.shape == g.response_ids.shape


def test_a_stop_text_ends_the_response_that_contains_it(engine: VLLMRollout) -> None:
    engine.config = configured(stop=("#", "3,"))
    answers = engine.generate(GenerationCall(requests(engine.policy, 16), ("t", 1, 0)))
    ended = [text for text in texts(engine.policy, answers) if "#" in text or "3," in text]
    assert len(ended) > 5
    assert all(text.endswith(("#", "3,")) for text in ended)
    assert all("#" not in text[:-1] and "3," not in text[:-1] for text in ended)


def test_greedy_takes_the_tokens_that_transformers_takes(engine: VLLMRollout) -> None:
    engine.config = configured(top_k=3)
    other = HFRollout(HFConfig(temperature=0.7, max_completion_length=12))
    other.start(engine.policy, seed=3)
    asked = requests(engine.policy, 1)
    own = engine.generate(GenerationCall(asked, ("t", 1, 0), greedy=True))
    expected = other.generate(GenerationCall(asked, ("t", 1, 0), greedy=True))
    assert texts(engine.policy, own) == texts(engine.policy, expected)
    assert not own[0][0].extras
    assert largest_difference(engine.policy, asked, own) < 5e-5


def test_frequencies_follow_the_probabilities_at_the_temperature(engine: VLLMRollout) -> None:
    engine.config = configured(max_completion_length=1)
    prompt = make_prompts(engine.policy, ["1+2="])[0]
    (answers,) = engine.generate(GenerationCall([Request(prompt=prompt, n=2000)], ("t", 1, 0)))
    counts = torch.bincount(torch.cat([g.response_ids for g in answers]), minlength=16)
    expected = 2000 * (engine.policy.model(prompt.ids[None]).logits[0, -1] / 0.7).softmax(-1)
    assert float(((counts - expected) ** 2 / expected).sum()) < CHI_SQUARE_16_OF_1000


def test_a_call_of_its_own_sampling_is_sampled_at_its_own_temperature(engine: VLLMRollout) -> None:
    """The logits come at 0.7, and are asked for at 0.4; later calls are at 0.7 again."""
    engine.config = configured(max_completion_length=1)
    prompt = make_prompts(engine.policy, ["1+2="])[0]
    call = GenerationCall([Request(prompt=prompt, n=2000)], ("eval", 1, 0))
    logits = engine.policy.model(prompt.ids[None]).logits[0, -1]
    for temperature, asked in ((0.4, Sampling(temperature=0.4)), (0.7, None)):
        (answers,) = engine.generate(replace(call, sampling=asked))
        counts = torch.bincount(torch.cat([g.response_ids for g in answers]), minlength=16)
        expected = 2000 * (logits / temperature).softmax(-1)
        seen = expected > 1
        error = ((counts - expected) ** 2 / expected)[seen]
        assert float(error.sum()) < CHI_SQUARE_16_OF_1000, temperature
        assert int(counts[~seen].sum()) < 30


def test_a_call_may_have_top_p_alone_and_another_length(engine: VLLMRollout) -> None:
    """A nucleus of one token is the greedy response."""
    asked = requests(engine.policy, 2)
    own = Sampling(top_p=1e-6, max_completion_length=3)
    answers = engine.generate(GenerationCall(asked, ("eval", 1, 0), sampling=own))
    greedy = engine.generate(GenerationCall(asked, ("t", 1, 0), greedy=True))
    for group, best in zip(answers, greedy, strict=True):
        for g in group:
            assert g.response_ids.tolist() == best[0].response_ids.tolist()[:3] and not g.extras


def test_there_is_room_for_longer_evaluations_than_training_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the arguments to vLLM; without vLLM."""
    engine = VLLMRollout(configured(max_prompt_length=20))
    asked: dict[str, Any] = {}
    engine.vllm = SimpleNamespace(LLM=lambda **given: asked.update(given))
    engine.policy = make_policy()
    engine.asker = Asker.of(engine.policy, 0)
    monkeypatch.setattr(
        engine,
        "_platform",
        lambda: SimpleNamespace(is_cpu=lambda: True, is_sleep_mode_available=lambda: False),
    )
    engine._build("folder")
    assert asked["max_model_len"] == max(20 + 12, LENGTH + 1)
    engine.reserve(30, 50)
    engine._build("folder")
    assert asked["max_model_len"] == 80


@pytest.mark.parametrize(("top_p", "kept"), [(1.0, {3}), (0.4, {1, 2, 3})])
def test_under_truncation_log_probs_are_whole_and_the_kept_mass_is_stored(
    engine: VLLMRollout, top_p: float, kept: set[int]
) -> None:
    """The mass of the three most probable tokens, or of the shortest prefix of them that holds
    `top_p` of it."""
    engine.config = configured(top_k=3, top_p=top_p)
    asked = requests(engine.policy, 8)
    answers = engine.generate(GenerationCall(asked, ("t", 1, 0)))
    assert largest_difference(engine.policy, asked, answers) < 5e-5
    counted = set()
    for request, group in zip(asked, answers, strict=True):
        logits = engine.policy.model(request.prompt.ids[None]).logits[0, -1] / 0.7
        whole = logits.log_softmax(-1).topk(3)
        share = whole.values.softmax(-1)
        count = int((share.cumsum(-1) - share < top_p).sum())
        counted.add(count)
        for g in group:
            mass = g.extras[KEPT]
            assert isinstance(mass, torch.Tensor) and mass.shape == g.logp.shape
            assert int(g.response_ids[0]) in whole.indices[:count].tolist()
            expected = whole.values[:count].logsumexp(-1)
            torch.testing.assert_close(mass[0], expected, atol=5e-5, rtol=0)
    assert counted <= kept


@pytest.mark.parametrize("names", ["norm", "self_attn", "mlp", "embed", ""])
def test_a_sync_brings_every_kind_of_weight(engine: VLLMRollout, names: str) -> None:
    change(engine.policy, names)
    engine.probe.score()
    assert engine.probe.difference(engine.score_probe()) > 1e-3
    engine.sync(5)
    assert engine.probe.difference(engine.score_probe()) < 5e-5
    asked = requests(engine.policy)
    answers = engine.generate(GenerationCall(asked, ("t", 5, 0)))
    assert largest_difference(engine.policy, asked, answers) < 5e-5
    assert {int(v) for group in answers for g in group for v in g.policy_version} == {5}


def test_a_sync_forgets_what_was_computed_with_the_old_weights(engine: VLLMRollout) -> None:
    """A prompt of several blocks, whose keys and values vLLM keeps for the next request."""
    prompt = make_prompts(engine.policy, ["1+2+3=" * 60])[0]
    asked = [Request(prompt=prompt, n=1)]
    engine.generate(GenerationCall(asked, ("t", 1, 0)))
    change(engine.policy, "")
    engine.sync(2)
    answers = engine.generate(GenerationCall(asked, ("t", 2, 0)))
    assert largest_difference(engine.policy, asked, answers) < 5e-5


def evidence(engine: VLLMRollout, report: Mapping[str, Any]) -> Evidence:
    (stale,) = engine.llm.collective_rpc("rlkit_stale_head")
    return Evidence(logp=engine.score_probe(), stale_head=stale, dtype=torch.float32, report=report)


NOTHING: Mapping[str, Any] = {"received": {}, "compared": [], "different": []}


def test_a_head_that_was_not_packed_again_is_named(engine: VLLMRollout) -> None:
    change(engine.policy, "embed")
    weights = checkpoint_weights(engine.policy)
    engine.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    engine.probe.score()
    with pytest.raises(UserError, match=r"differ by 0\.\d+ nats.*its packed copy of the LM head"):
        engine.probe.check(evidence(engine, NOTHING), "vLLM", 2)


def test_weights_that_never_arrived_are_named(engine: VLLMRollout) -> None:
    change(engine.policy, "norm")
    engine.probe.score()
    with pytest.raises(UserError, match="it still has the weights of the previous sync"):
        engine.probe.check(evidence(engine, NOTHING), "vLLM", 2)


def test_weights_it_does_not_hold_are_named(engine: VLLMRollout) -> None:
    """Norms and embeddings, which vLLM keeps as they are on the CPU, changed behind its back."""
    report = engine.load_weights()
    assert set(report["received"]) == set(dict(checkpoint_weights(engine.policy)))
    assert not report["different"]
    assert {name.split(".")[-2] for name in report["compared"]} == {
        *("embed_tokens", "norm", "input_layernorm", "post_attention_layernorm")
    }
    (model,) = engine.llm.apply_model(lambda model: model)
    with torch.no_grad():
        model.model.norm.weight[3] += 0.001
    arrivals = Arrivals({"model.norm.weight": torch.float32}, {})
    list(arrivals.read(checkpoint_weights(engine.policy)))
    report = arrivals.report({"model.norm.weight": model.model.norm.weight})
    assert report["different"] == ["model.norm.weight"]
    with pytest.raises(
        UserError, match=r"does not hold the weights it received: model\.norm\.weig"
    ):
        engine.probe.check(evidence(engine, report), "vLLM", 2)


def test_the_process_keeps_its_random_state_and_its_threads(engine: VLLMRollout) -> None:
    before = torch.get_rng_state()
    engine.sync(1)
    engine.generate(GenerationCall(requests(engine.policy), ("t", 1, 0)))
    assert torch.equal(torch.get_rng_state(), before)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


def test_a_head_of_its_own_is_served_and_synced_too() -> None:
    policy = make_policy(tied=False)
    made = make_engine(policy, temperature=1.0)
    try:
        change(policy, "lm_head", by=0.1)
        made.probe.score()
        assert made.probe.difference(made.score_probe()) > 1e-3
        made.sync(2)
        assert made.engine_difference < 5e-5
    finally:
        made.close()


def halved(policy: Policy, dtype: torch.dtype, autocast: torch.dtype | None) -> Policy:
    torch.nn.Module.to(policy.model, dtype)
    return Policy(policy.model, policy.tokenizer, policy.temperature, autocast=autocast)


@pytest.mark.parametrize(
    ("trainer", "autocast", "asked", "expected"),
    [
        (torch.bfloat16, None, None, torch.bfloat16),
        (torch.float32, torch.bfloat16, None, torch.float32),
        (torch.float32, torch.bfloat16, "bfloat16", torch.bfloat16),
    ],
)
def test_right_weights_are_accepted_in_half_precision(
    trainer: torch.dtype, autocast: torch.dtype | None, asked: str | None, expected: torch.dtype
) -> None:
    """On each side, and a sync that leaves a layer out is still refused."""
    policy = halved(make_policy(), trainer, autocast)
    made = make_engine(policy, temperature=1.0, dtype=asked)
    try:
        assert made.dtype == expected
        assert made.llm.collective_rpc("rlkit_dtype") == [str(expected).removeprefix("torch.")]
        for step in (2, 3):
            change(policy, "")
            made.sync(step)
        change(policy, "embed", by=0.3)
        weights = dict(checkpoint_weights(policy))
        del weights["model.embed_tokens.weight"]
        made.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.items()})
        made.probe.score()
        with pytest.raises(UserError, match="it still has the weights of the previous sync|some"):
            made.probe.check(evidence(made, NOTHING), "vLLM", 4)
    finally:
        made.close()


@pytest.mark.slow
def test_a_stop_text_with_special_tokens_ends_a_response_too() -> None:
    """Alone it is a token; among others vLLM looks for it where special tokens are kept. A response
    is then the same as without the stop text, up to its end."""
    policy = make_policy(temperature=0.7)
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["#"]})
    (special,) = policy.tokenizer("#")["input_ids"]
    made = make_engine(policy)

    def sampled(*stop: str) -> list[list[int]]:
        made.config = configured(stop=stop)
        found = made.generate(GenerationCall(requests(policy, 60), ("t", 1, 0)))
        return [g.response_ids.tolist() for group in found for g in group]

    try:
        free = sampled()
        pairs = Counter(pair for ids in free for pair in pairwise(ids) if special in pair)
        (pair, _), *_ = pairs.most_common(1)
        assert sampled("#") == [cut(ids, [special]) for ids in free]
        stop = "".join(policy.tokenizer.convert_ids_to_tokens(list(pair)))
        assert sampled(stop) == [cut(ids, list(pair)) for ids in free]
    finally:
        made.close()


@pytest.mark.slow
def test_a_run_on_the_embedded_model_trains_with_it(tmp_path: Path) -> None:
    """With train.steps=2 and TIS on the engine's log-probs, as a user would."""
    pytest.importorskip("vllm")
    chosen = ("algorithm=grpo", "rollout=vllm", "rollout.kv_cache_gb=0.1", "correction=[tis]")
    result = run(*SMALL, *chosen, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    rows = metrics(tmp_path / "out")
    assert rows[0]["eval/pass@1"] > 0
    assert all(abs(row["policy/ratio_mean"] - 1) < 0.1 for row in rows[1:3])


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_a_run_says_what_to_install(tmp_path: Path) -> None:
    result = run("rollout=vllm", "output_dir=out", cwd=tmp_path)
    assert result.status == 2
    assert result.err.startswith("rlkit: vLLM is not installed; install the extra with pip install")
    assert len(result.err.splitlines()) == 1


GRPO = (*SMALL, "algorithm=grpo", "correction=[tis]", "output_dir=out")


@pytest.mark.slow
def test_vllm_generates_in_a_process_of_its_own_while_training_runs(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    chosen = ("rollout=vllm", "rollout.kv_cache_gb=0.1", "rollout.mode=ahead")
    done = run(*GRPO, *chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    rows = metrics(tmp_path / "out")
    assert [row["off_policy/staleness_max"] for row in rows[1:3]] == [0, 1]


@pytest.mark.slow
def test_two_trainers_have_a_vllm_each_in_processes_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    chosen = ("rollout=vllm", "rollout.kv_cache_gb=0.1", "rollout.mode=ahead")
    done = launch("rlkit.run", *GRPO, *chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    assert metrics(tmp_path / "out")[2]["off_policy/staleness_max"] == 1


def test_its_memory_is_weights_and_cache_also_while_training_on_the_cpu() -> None:
    policy = make_policy()
    found = VLLMRollout(configured(kv_cache_gb=0.5)).memory(policy, 8, 10)
    weights = sum(p.nbytes for p in policy.model.parameters())
    assert found.generating == found.training == weights + 2**29
