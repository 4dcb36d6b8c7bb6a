"""Episodes: whose every token is, what the policy reads, why they end, what they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import Prompt, Request
from rlkit.config.turns import TurnsConfig
from rlkit.environments.rendering import observation_ids
from rlkit.errors import UserError
from rlkit.interfaces import Observation, Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import EngineMemory, Generation, GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.played import OBSERVED, TURNS
from rlkit.rollout.sampling import KEPT
from rlkit.rollout.turns import TurnsEngine
from rlkit.runs.checkpoint import load_tree, save_tree
from rlkit.tasks.prompts import Prompts
from tests.rollout.echo import ROWS, Echo, EchoConfig, chat_policy

STREAM = ("rollout", 3, 0)


def engine_of(
    policy: Policy, environment: Any = None, limits: TurnsConfig | None = None, **fields: Any
) -> TurnsEngine:
    settings = {"max_completion_length": 60, "num_generations": 3, **fields}
    made = TurnsEngine(
        HFRollout(HFConfig(**settings)), environment or Echo(), limits or TurnsConfig()
    )
    made.start(policy, seed=5)
    made.sync(3)
    return made


def prompts_of(policy: Policy, count: int = 4) -> list[Prompt]:
    found: list[Prompt] = Prompts("train", ROWS, policy.tokenizer)[:count]
    return found


def call_of(policy: Policy, n: int = 3, count: int = 4, **fields: Any) -> GenerationCall:
    asked = [Request(prompt=prompt, n=n) for prompt in prompts_of(policy, count)]
    return GenerationCall(asked, STREAM, **fields)


def flat(groups: Sequence[Sequence[Generation]]) -> list[Generation]:
    return [generation for group in groups for generation in group]


def same(one: Generation, two: Generation) -> bool:
    assert one.played is not None and two.played is not None
    return (
        torch.equal(one.response_ids, two.response_ids)
        and torch.equal(one.loss_mask, two.loss_mask)
        and torch.allclose(one.logp, two.logp, atol=1e-5)
        and one.finish_reason == two.finish_reason
        and one.played.messages == two.played.messages
        and one.played.reward == two.played.reward
    )


def runs_of(mask: torch.Tensor) -> list[tuple[bool, int, int]]:
    """Whose each stretch is, from where, to where."""
    ends = [*(mask.diff().nonzero().squeeze(-1) + 1).tolist(), len(mask)]
    starts = [0, *ends[:-1]]
    return [(bool(mask[a]), a, b) for a, b in zip(starts, ends, strict=True)]


def test_every_token_has_its_owner_log_prob_and_version() -> None:
    """Sampled tokens carry the log-probs of one forward over the whole, shown ones are rendered."""
    policy = chat_policy()
    engine = engine_of(policy)
    call = call_of(policy)
    several = 0
    for request, group in zip(call.requests, engine.generate(call), strict=True):
        for g in group:
            assert g.played is not None
            whole = policy.logp(Tokens.of([request.prompt.ids], [g.response_ids]))[0]
            mask = g.loss_mask
            torch.testing.assert_close(g.logp[mask], whole[mask], atol=1e-5, rtol=0)
            assert (g.logp[~mask] == 0).all()
            assert g.policy_version.tolist() == [3] * len(mask)
            stretches = runs_of(mask)
            assert stretches[0][0] and stretches[-1][0], "the policy begins and ends"
            own = [g.response_ids[a:b] for mine, a, b in stretches if mine]
            shown = [g.response_ids[a:b] for mine, a, b in stretches if not mine]
            assert g.played.counts[TURNS] == len(own)
            assert g.played.counts[OBSERVED] == sum(map(len, shown))
            messages = g.played.messages
            assert [m["role"] for m in messages] == (["assistant", "user"] * len(own))[:-1]
            for turn, said, message, ids in zip(
                own, messages[::2], messages[1::2], shown, strict=False
            ):
                assert policy.tokenizer.decode(turn) == said["content"]
                assert ids.tolist() == observation_ids(policy.tokenizer, turn.tolist(), [message])
            several += len(own) > 1
    assert several > 3


def test_samples_depend_neither_on_batching_nor_on_ranks_nor_on_who_else_lives() -> None:
    policy = chat_policy()
    call = call_of(policy)
    whole = flat(engine_of(policy).generate(call))
    assert len({tuple(g.response_ids.tolist()) for g in whole}) > 6
    small = engine_of(policy, limits=TurnsConfig(concurrency=5), generation_batch_size=2)
    shares = [
        g
        for part in (slice(0, 1), slice(1, 3), slice(3, 4))
        for g in flat(engine_of(policy).generate(replace(call, part=part)))
    ]
    for other in (flat(small.generate(call)), shares):
        assert all(same(a, b) for a, b in zip(whole, other, strict=True))


def test_an_episode_does_not_change_with_the_turns_of_others() -> None:
    """Others end earlier or later; the rows of the first prompt keep their tokens."""
    policy = chat_policy()

    class Quick(Echo):
        def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
            found = super().step(episodes, turns)
            return [
                o if self.starts[e].row["answer"] == "0" else replace(o, done=True, messages=())
                for e, o in zip(episodes, found, strict=True)
            ]

    call = call_of(policy)
    one, other = (engine_of(policy, kind()).generate(call) for kind in (Echo, Quick))
    assert all(same(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert {g.played.counts[TURNS] for g in flat(other[1:]) if g.played} == {1}
    assert max(g.played.counts[TURNS] for g in flat(one[1:]) if g.played) > 1


def test_every_way_to_end() -> None:
    policy = chat_policy()
    never = EchoConfig(until=0)

    def reasons(limits: TurnsConfig, config: EchoConfig = never, **fields: Any) -> set[str]:
        engine = engine_of(policy, Echo(config), limits, **fields)
        return {g.finish_reason for g in flat(engine.generate(call_of(policy)))}

    assert reasons(TurnsConfig(max=2), max_completion_length=400) == {"turns"}
    assert reasons(TurnsConfig(max=100), max_completion_length=40) == {"length"}
    assert reasons(TurnsConfig(max=100), EchoConfig(until=1)) == {"stop"}


def test_no_response_is_longer_than_allowed_and_none_ends_with_what_was_shown() -> None:
    policy = chat_policy()
    for limit in (8, 17, 33):
        engine = engine_of(policy, Echo(EchoConfig(until=0)), max_completion_length=limit)
        for g in flat(engine.generate(call_of(policy))):
            assert len(g.response_ids) <= limit and bool(g.loss_mask[-1])


def test_the_last_turn_is_answered_and_its_answer_not_shown() -> None:
    """Two turns, two steps of the environment: a last move counts."""
    policy = chat_policy()
    environment = Echo(EchoConfig(until=0))
    engine = engine_of(policy, environment, TurnsConfig(max=2), max_completion_length=400)
    for g in flat(engine.generate(call_of(policy))):
        assert g.played is not None
        assert g.played.reward == 0.5 and g.played.counts["calls"] == 2
        assert [whose for whose, _, _ in runs_of(g.loss_mask)] == [True, False, True]
    assert sorted(environment.ended) == sorted(environment.starts)


def test_a_clock_ends_episodes_between_turns() -> None:
    policy = chat_policy()
    engine = engine_of(policy, Echo(EchoConfig(until=0)), TurnsConfig(seconds=1.5, max=50))
    ticks = iter([0.0] * 12 + [1.0] * 12 + [2.0] * 12)
    engine.now = lambda: next(ticks)
    found = flat(engine.generate(call_of(policy, count=4)))
    late = [g for g in found if g.finish_reason == "time"]
    assert late and all(g.played is not None and g.played.counts[TURNS] == 2 for g in late)


def test_what_is_too_long_is_cut_before_it_is_written() -> None:
    policy = chat_policy()
    limits = TurnsConfig(max_observation_tokens=2, max=2)
    engine = engine_of(
        policy, Echo(EchoConfig(until=0, size=40)), limits, max_completion_length=400
    )
    contents = [
        message["content"]
        for g in flat(engine.generate(call_of(policy)))
        if g.played
        for message in g.played.messages[1::2]
    ]
    assert any("more tokens were cut" in text for text in contents)
    assert all(len(text.split("\n")[0]) <= 2 for text in contents)


def test_a_text_of_the_environment_becomes_part_of_the_prompt() -> None:
    """Tokens of the whole prompt with the text; log-probs are those after it."""
    policy = chat_policy()
    call = call_of(policy, count=8)
    groups = engine_of(policy, Echo(EchoConfig(greets=True))).generate(call)
    for request, group in zip(call.requests, groups, strict=True):
        asked = request.prompt.text_or_messages
        assert not isinstance(asked, str)
        longer = [
            {**asked[0], "content": asked[0]["content"] + str(request.prompt.columns["answer"])}
        ]
        for g in group:
            assert g.played is not None and g.played.prompt_ids is not None
            assert g.played.asked == longer
            text = policy.tokenizer.apply_chat_template(
                longer, tokenize=False, add_generation_prompt=True
            )
            ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert g.played.prompt_ids.tolist() == ids
            whole = policy.logp(Tokens.of([g.played.prompt_ids], [g.response_ids]))[0]
            mask = g.loss_mask
            torch.testing.assert_close(g.logp[mask], whole[mask], atol=1e-5, rtol=0)
    short = engine_of(policy, Echo(EchoConfig(greets=True)), max_prompt_length=10)
    with pytest.raises(
        UserError, match=r"prompt of \d+ tokens, more than rollout.max_prompt_length=10"
    ):
        short.generate(call)


def test_the_prompt_is_read_once_for_all_first_turns() -> None:
    policy = chat_policy()
    rows: list[int] = []
    policy.model.register_forward_pre_hook(
        lambda model, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    engine = engine_of(policy)
    rows.clear()
    engine.generate(call_of(policy))
    assert rows[0] == 4


def test_starts_are_alike_within_a_group_and_ids_are_stable() -> None:
    policy = chat_policy()
    first, second = Echo(), Echo()
    call = call_of(policy)
    engine_of(policy, first).generate(call)
    engine_of(policy, second).generate(call)
    assert first.starts == second.starts and len(first.starts) == 12
    seeds = [start.seed for start in first.starts.values()]
    assert [len(set(seeds[i : i + 3])) for i in range(0, 12, 3)] == [1] * 4
    assert len(set(seeds)) == 4
    greedy, evaluated, later = Echo(), Echo(), Echo()
    once = replace(call_of(policy, n=1), greedy=True, stream=("greedy", 3, 0))
    engine_of(policy, greedy).generate(once)
    assert {s.seed for s in greedy.starts.values()} == set(seeds)
    for environment, step in ((evaluated, 0), (later, 9)):
        engine_of(policy, environment).generate(replace(call, stream=("eval", step, 0)))
    assert [s.seed for s in evaluated.starts.values()] == [s.seed for s in later.starts.values()]


def test_stop_texts_are_looked_for_in_a_turn_alone() -> None:
    """A turn that a stop text ended does not end the next one, in which the text is not."""
    policy = chat_policy()
    engine = engine_of(policy, Echo(EchoConfig(until=0)), max_completion_length=200, stop=("1",))
    found = flat(engine.generate(call_of(policy)))
    turns = [g.response_ids[a:b] for g in found for mine, a, b in runs_of(g.loss_mask) if mine]
    stopped = ["1" in policy.tokenizer.decode(turn) for turn in turns]
    assert any(stopped) and max(map(len, turns)) > 1
    for turn, hit in zip(turns, stopped, strict=True):
        text = policy.tokenizer.decode(turn)
        assert not hit or text.index("1") == len(text) - 1


def test_the_kept_mass_of_what_was_shown_is_whole() -> None:
    policy = chat_policy()
    found = flat(engine_of(policy, top_k=5).generate(call_of(policy)))
    for g in found:
        kept = g.extras[KEPT]
        assert isinstance(kept, torch.Tensor) and len(kept) == len(g.response_ids)
        assert (kept[~g.loss_mask] == 0).all()
    assert any((g.extras[KEPT][g.loss_mask] < 0).any() for g in found)  # type: ignore[index]


def test_episodes_go_between_processes_and_into_checkpoints(tmp_path: Any) -> None:
    policy = chat_policy()
    found = flat(engine_of(policy, Echo(EchoConfig(greets=True))).generate(call_of(policy)))
    save_tree(tmp_path / "x", pack(found))
    again = unpack(load_tree(tmp_path / "x"))
    for one, two in zip(found, again, strict=True):
        assert same(one, two)
        assert one.played is not None and two.played is not None
        assert one.played.counts == two.played.counts and one.played.asked == two.played.asked
        assert torch.equal(one.kept["prompt_ids"], two.kept["prompt_ids"])  # type: ignore[arg-type]
    bare = [replace(g, played=None) for g in found]
    assert "played" not in pack(bare) and unpack(pack(bare))[0].played is None


def test_turns_know_their_states_and_rewards() -> None:
    """The first turns of a prompt are in one state; later ones in that of what was said before."""
    policy = chat_policy()
    call = call_of(policy)
    digits: dict[int, str] = {}
    for number, group in enumerate(engine_of(policy).generate(call)):
        firsts = set()
        for g in group:
            assert g.played is not None and g.played.turn is not None
            turn, messages = g.played.turn, g.played.messages
            assert torch.equal(turn > 0, g.loss_mask) and g.played.earned is None
            own = [int(turn[a]) for mine, a, _ in runs_of(g.loss_mask) if mine]
            assert own == list(range(1, g.played.counts[TURNS] + 1))
            firsts.add(g.played.states[0])
            for state, message in zip(g.played.states[1:], messages[1::2], strict=False):
                assert digits.setdefault(state, message["content"]) == message["content"]
        assert len(firsts) == 1, number
    assert len(digits) > 3 and len(set(digits.values())) == len(digits)


def test_an_environment_may_tell_states_and_rewards_of_turns() -> None:
    policy = chat_policy()

    class Telling(Echo):
        def states(self, episodes: Sequence[int]) -> list[str | None]:
            return [str(len(self.turns[episode])) for episode in episodes]

        def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
            return [float(len(self.turns[episode])) for episode in episodes]

    plain, told = (
        flat(engine_of(policy, kind(), max_completion_length=400).generate(call_of(policy)))
        for kind in (Echo, Telling)
    )
    every: dict[int, set[int]] = {}
    for before, g in zip(plain, told, strict=True):
        assert same(before, g), "what is told changes no episode"
        assert g.played is not None
        count = g.played.counts[TURNS]
        for number, state in enumerate(g.played.states):
            every.setdefault(number, set()).add(state)
        assert list(g.played.earned or ()) == [float(k) for k in range(1, count + 1)]
    assert [len(found) for found in every.values()] == [1] * len(every) and len(every) > 1


def test_rewards_may_look_at_environments_until_the_next_step() -> None:
    policy = chat_policy()

    class Shown(Echo):
        def handles(self, episodes: Sequence[int]) -> list[Any]:
            return [self.turns[episode] for episode in episodes]

    environment = Shown()
    engine = engine_of(policy, environment)
    engine.looked_at = True
    found = flat(engine.generate(call_of(policy)))
    engine.generate(replace(call_of(policy, n=1), stream=("greedy", 3, 0), greedy=True))
    assert not environment.ended
    for g in found:
        assert g.played is not None and len(g.played.handle) == g.played.counts["calls"]
    engine.generate(replace(call_of(policy), stream=("rollout", 4, 0)))
    assert len(environment.ended) == 12 + 4


def test_an_evaluation_is_marked_before_the_next_one_so_its_episodes_end_there() -> None:
    """The greedy episodes of a training step are marked after its others, those of an evaluation
    not."""
    policy, environment = chat_policy(), Echo()
    engine = engine_of(policy, environment)
    engine.looked_at = True
    held: list[int] = []
    for name in ("rollout", "greedy", "eval", "eval-greedy", "eval/other"):
        engine.generate(replace(call_of(policy, n=1), stream=(name, 3, 0)))
        held.append(len(environment.starts) - len(environment.ended))
    assert held == [4, 8, 4, 4, 4]


def test_what_fails_ends_its_episodes() -> None:
    policy = chat_policy()

    class Broken(Echo):
        def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
            raise UserError("no")

    class Silent(Echo):
        def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
            return [replace(o, messages=(), done=False) for o in super().step(episodes, turns)]

    broken, silent = Broken(), Silent()
    with pytest.raises(UserError, match="no"):
        engine_of(policy, broken).generate(call_of(policy))
    with pytest.raises(UserError, match="the environment neither ended an episode nor said"):
        engine_of(policy, silent).generate(call_of(policy))
    for environment in (broken, silent):
        assert sorted(environment.ended) == sorted(environment.starts)


def test_what_the_template_refuses_ends_its_episode_and_not_the_run() -> None:
    """A template that knows no tools, and a tool that answers the turns of one prompt."""
    policy = chat_policy()
    raises = "{% for m in messages if m.role == 'tool' %}{{ raise_exception('no') }}{% endfor %}"
    policy.tokenizer.chat_template = raises + str(policy.tokenizer.chat_template)

    class Odd(Echo):
        def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
            return [
                replace(o, messages=[{"role": "tool", "content": "1"}])
                if o.messages and self.starts[e].row["answer"] == "0"
                else o
                for e, o in zip(episodes, super().step(episodes, turns), strict=True)
            ]

    environment = Odd(EchoConfig(until=0))
    engine = engine_of(policy, environment, TurnsConfig(max=2), max_completion_length=400)
    found = engine.generate(call_of(policy))
    assert [{g.finish_reason for g in group} for group in found] == [{"template"}] + [{"turns"}] * 3
    for g in found[0]:
        assert g.played is not None and g.played.reward == 0.25 and bool(g.loss_mask.all())
        assert [m["role"] for m in g.played.messages] == ["assistant"]


def test_it_passes_the_engine_s_own_matters_on() -> None:
    policy = chat_policy()
    engine = engine_of(policy)
    assert engine.matches_trainer
    assert isinstance(engine.memory(policy, 4, 10), EngineMemory)
    engine.inner.most = 3  # type: ignore[attr-defined]
    other = engine_of(policy)
    other.load_state_dict(engine.state_dict())
    assert other.inner.most == 3  # type: ignore[attr-defined]
    told: list[int] = []
    assert engine.generate(GenerationCall([], STREAM)) == []
    engine.generate(call_of(policy, tell=told.append))
    assert told[-1] == 4
