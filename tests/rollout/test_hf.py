"""The transformers engine: exact log-probs, samples that depend on nothing but the stream."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import Request
from rlkit.errors import UserError
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall, cache_bytes
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.hf_batch import HFBatch
from rlkit.rollout.sampling import KEPT
from tests.rollout.models import cut
from tests.tiny import make_policy, make_prompts

TEXTS = ["1+2=", "12+345=", "7=", "1+2+3+4=", "99="]


def engine(policy: Policy, **fields: object) -> HFRollout:
    made = HFRollout(HFConfig(**{"max_completion_length": 12, **fields}))
    made.start(policy, seed=3)
    return made


def requests(policy: Policy, n: int = 4) -> list[Request]:
    return [Request(prompt=p, n=n) for p in make_prompts(policy, TEXTS)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_taken_while_sampling_are_those_of_a_full_forward(temperature: float) -> None:
    policy = make_policy(temperature=temperature)
    asked = requests(policy)
    answers = engine(policy, temperature=temperature).generate(GenerationCall(asked, ("t", 1, 0)))
    flat = [(r.prompt.ids, g) for r, group in zip(asked, answers, strict=True) for g in group]
    logp = policy.logp(Tokens.of([p for p, _ in flat], [g.response_ids for _, g in flat]))
    for row, (_, g) in zip(logp, flat, strict=True):
        torch.testing.assert_close(row[: len(g.logp)], g.logp, atol=2e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 12])
def test_samples_do_not_depend_on_batching(policy: Policy, batch_size: int) -> None:
    whole = engine(policy).generate(GenerationCall(requests(policy), ("t", 1, 0)))
    parts = engine(policy, generation_batch_size=batch_size).generate(
        GenerationCall(requests(policy), ("t", 1, 0))
    )
    assert [[g.response_ids.tolist() for g in r] for r in parts] == [
        [g.response_ids.tolist() for g in r] for r in whole
    ]


def test_it_tells_how_many_requests_are_answered_after_each_batch(policy: Policy) -> None:
    """Five requests of 4 responses, two in a batch of 8."""
    told: list[int] = []
    made = engine(policy, generation_batch_size=8, max_completion_length=2)
    made.generate(GenerationCall(requests(policy), ("t", 1, 0), tell=told.append))
    assert told == [2, 4, 5]


def test_a_stream_repeats_and_another_differs(policy: Policy) -> None:
    def draw(step: int) -> list[list[int]]:
        answers = engine(policy).generate(GenerationCall(requests(policy), ("t", step, 0)))
        return [g.response_ids.tolist() for r in answers for g in r]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_responses_stop_at_the_end_token_and_say_so(policy: Policy) -> None:
    answers = engine(policy, max_completion_length=30).generate(
        GenerationCall(requests(policy, 16), ("t", 1, 0))
    )
    flat = [g for r in answers for g in r]
    assert {g.finish_reason for g in flat} == {"stop", "length"}
    for g in flat:
        ids = g.response_ids.tolist()
        assert 1 not in ids[:-1]
        assert (ids[-1] == 1) == (g.finish_reason == "stop")
        assert len(ids) == 30 or g.finish_reason == "stop"
        assert g.policy_version.tolist() == [1] * len(ids)


def test_a_stop_text_ends_the_response_that_contains_it(policy: Policy) -> None:
    answers = engine(policy, stop=("#", "3,")).generate(
        GenerationCall(requests(policy, 16), ("t", 1, 0))
    )
    ended = 0
    for g in (g for r in answers for g in r):
        text = policy.tokenizer.decode(g.response_ids, skip_special_tokens=True)
        shorter = policy.tokenizer.decode(g.response_ids[:-1], skip_special_tokens=True)
        assert "#" not in shorter and "3," not in shorter
        ended += "#" in text or "3," in text
    assert ended > 5


def test_a_stop_text_with_special_tokens_ends_a_response_too() -> None:
    """Alone it is a token; among others it is looked for in the text with special tokens."""
    policy = make_policy()
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["#"]})
    (special,) = policy.tokenizer("#")["input_ids"]
    (one,) = policy.tokenizer("1")["input_ids"]
    call = GenerationCall(requests(policy, 40), ("t", 1, 0))

    def sampled(*stop: str) -> list[list[int]]:
        return [
            g.response_ids.tolist() for r in engine(policy, stop=stop).generate(call) for g in r
        ]

    free = sampled()
    assert any(special in ids for ids in free), "the model writes it, else this test checks nothing"
    assert sampled("#") == [cut(ids, [special]) for ids in free]
    assert any([one, special] == ids[i : i + 2] for ids in free for i in range(len(ids)))
    assert sampled("1#") == [cut(ids, [one, special]) for ids in free]


def test_greedy_takes_the_most_probable_token(policy: Policy) -> None:
    answers = engine(policy).generate(GenerationCall(requests(policy, 1), ("t", 1, 0), greedy=True))
    for request, (g,) in zip(requests(policy, 1), answers, strict=True):
        out = policy.model.generate(  # type: ignore[operator]
            request.prompt.ids[None], do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert (
            out[0, len(request.prompt.ids) :].tolist()[: len(g.response_ids)]
            == g.response_ids.tolist()
        )


def test_frequencies_follow_the_probabilities(policy: Policy) -> None:
    """Inverse-CDF sampling: 4000 first tokens against the exact distribution."""
    prompt = make_prompts(policy, ["1+2="])[0]
    answers = engine(policy, max_completion_length=1, generation_batch_size=5000).generate(
        GenerationCall([Request(prompt=prompt, n=4000)], ("t", 1, 0))
    )
    counts = torch.bincount(torch.cat([g.response_ids for g in answers[0]]), minlength=16) / 4000
    exact = policy.model(prompt.ids[None]).logits[0, -1].softmax(-1)
    assert (counts - exact).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_under_truncation_the_kept_mass_is_stored_and_corrects_the_log_prob(policy: Policy) -> None:
    """behavior log-prob of the truncated sampler = stored log-prob - log of the kept mass."""
    asked = requests(policy)
    answers = engine(policy, top_k=3).generate(GenerationCall(asked, ("t", 1, 0)))
    assert all(KEPT in g.extras for r in answers for g in r)
    g, prompt = answers[0][0], asked[0].prompt
    first = policy.model(prompt.ids[None]).logits[0, -1].log_softmax(-1)
    top = first.topk(3)
    token = int(g.response_ids[0])
    assert token in top.indices.tolist()
    kept = g.extras[KEPT]
    assert isinstance(kept, torch.Tensor)
    torch.testing.assert_close(kept[0], top.values.logsumexp(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(g.logp[0], first[token], atol=1e-5, rtol=0)
    assert all(
        not g.extras for r in engine(policy).generate(GenerationCall(asked, ("t", 1, 0))) for g in r
    )


def little_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Batches of more responses do not fit; returns the sizes that are tried."""
    tried: list[int] = []
    real = HFBatch.run

    def run(self: HFBatch) -> list[Generation]:
        tried.append(len(self.ids))
        if len(self.ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(HFBatch, "run", run)
    return tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (20, [20]),
        (10, [20, 8, 8, 4]),
        (5, [20, 8, 4, 4, 4, 4, 4]),
        (2, [20, 8, 4] + [2] * 10),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_the_samples_stay(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]
) -> None:
    """Five prompts with four responses each: whole requests while they fit, then parts of one."""
    call = GenerationCall(requests(policy), ("t", 1, 0))
    expected = [[g.response_ids.tolist() for g in r] for r in engine(policy).generate(call)]
    made = engine(policy)  # its probe is a batch too
    tried = little_memory(monkeypatch, most)
    found = made.generate(call)
    assert [[g.response_ids.tolist() for g in r] for r in found] == expected
    assert tried == sizes


def test_a_halved_batch_stays_halved_and_is_part_of_the_state(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, again = engine(policy), engine(policy)
    assert made.state_dict() == {"shares_prompts": True}
    tried = little_memory(monkeypatch, 8)
    made.generate(GenerationCall(requests(policy), ("t", 1, 0)))
    again.load_state_dict(made.state_dict())
    for one in (made, again):
        del tried[:]
        one.generate(GenerationCall(requests(policy), ("t", 2, 0)))
        assert tried == [8, 8, 4]


@pytest.mark.slow
def test_one_response_that_does_not_fit_is_told_in_one_line(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(policy)
    little_memory(monkeypatch, 0)
    with pytest.raises(UserError, match="one response; use shorter responses"):
        made.generate(GenerationCall(requests(policy), ("t", 1, 0)))


@pytest.mark.parametrize(("responses", "rows"), [(5, 5), (100, 8)])
def test_its_memory_is_that_of_the_responses_at_once(
    policy: Policy, responses: int, rows: int
) -> None:
    engine = HFRollout(HFConfig(generation_batch_size=8))
    found = engine.memory(policy, responses, 10)
    assert found.generating == cache_bytes(policy, rows * 10, 4)
    assert found.training == 0 and found.adapts
