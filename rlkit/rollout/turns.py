"""Responses in several turns with an environment, around any engine.

    sample a turn -> its text to the environment -> its answer as template tokens -> sample on

The tokens that were sampled are the tokens that are trained: a response is never tokenized again,
only what the environment says is rendered, and appended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from rlkit.batch import Prompt
from rlkit.config.turns import TurnsConfig
from rlkit.environments.formats import call_parser
from rlkit.environments.rendering import observation_ids
from rlkit.errors import UserError
from rlkit.interfaces import Environment, Observation, Start, State, state_number, with_text
from rlkit.models.policy import Policy
from rlkit.ops import stream_seed
from rlkit.rollout.base import (
    EVALUATION,
    EngineAround,
    Generation,
    GenerationCall,
    RolloutEngine,
)
from rlkit.rollout.played import RESTARTED, TURNS
from rlkit.rollout.turns_cut import cut_messages
from rlkit.rollout.turns_episode import Episode, together
from rlkit.tasks.encode import Encoder

LENGTH, MOST_TURNS, LATE, UNWRITABLE = "length", "turns", "time", "template"
"""Why the loop ends an episode; the environment has reasons of its own."""


class TurnsEngine(EngineAround):
    """An engine whose responses are episodes of an environment.

    All live episodes sample their next turn in one batch, and their tools run at the same time;
    those that end leave the batch. Each response keeps the number of its draws whatever becomes of
    others: turn t of response i takes the draws of the stream (name/turn-t, step, call, i), so the
    samples depend neither on batching nor on ranks. An episode's id follows from the same stream,
    so a step that is repeated after a kill begins the same episodes. Status: our choice.
    """

    def __init__(
        self,
        inner: RolloutEngine[Any],
        environment: Environment[Any],
        limits: TurnsConfig,
        *,
        looked_at: bool = False,
    ) -> None:
        super().__init__(inner)
        self.environment, self.limits = environment, limits
        self.looked_at = looked_at
        """Whether rewards read the environments themselves, which then live until the next step or
        evaluation."""
        self.now: Callable[[], float] = time.monotonic
        self.kept: dict[tuple[str | int, ...], list[int]] = {}
        """Episodes that rewards may still look at, by the calls that are marked together."""

    def start(self, policy: Policy, seed: int) -> None:
        """Start the engine and open the environment."""
        self.inner.start(policy, seed)
        self.policy, self.seed = policy, seed
        self.encoder = Encoder(policy.tokenizer)
        form = self.limits.call_format
        form = self.environment.call_format if form == "auto" else form
        self.environment.open(
            replace(
                self.environment.context,
                seed=seed,
                parse=call_parser(policy.tokenizer, form),
                calls_per_turn=self.limits.max_calls,
            )
        )

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Whole episodes for each request, in order."""
        self._forget(call)
        episodes = list(self._planned(call))
        size = self.limits.concurrency or max(1, len(episodes))
        done: list[Generation] = []
        for first in range(0, len(episodes), size):
            done += self.play(episodes[first : first + size], call)
            if call.tell is not None:
                call.tell(len(done) * len(call.own) // len(episodes))
        flat = iter(done)
        return [[next(flat) for _ in range(request.n)] for request in call.own]

    def close(self) -> None:
        """End what still runs and release the engine."""
        self.environment.close()
        self.inner.close()

    def state_dict(self) -> State:
        """The engine's: no episode outlives a step."""
        return self.inner.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state)

    def _planned(self, call: GenerationCall) -> Iterator[Episode]:
        """An episode for each own response, none of them begun."""
        name, *index = call.stream
        longest = call.settings(self.config).max_completion_length
        first, _, _ = call.part.indices(len(call.requests))
        number = sum(request.n for request in call.requests[:first])
        for place, request in enumerate(call.own, start=first):
            # alike in every evaluation, and for the greedy responses of a step
            alike = (
                stream_seed(self.seed, f"start/{EVALUATION}", place)
                if call.evaluates
                else stream_seed(self.seed, "start", *index, place)
            )
            for _ in range(request.n):
                start = Start(
                    episode=stream_seed(self.seed, f"episode/{name}", *index, number),
                    row={**request.prompt.columns, "prompt": request.prompt.text_or_messages},
                    seed=alike,
                )
                yield Episode(number=number, start=start, prompt=request.prompt, longest=longest)
                number += 1

    def _forget(self, call: GenerationCall) -> None:
        """End the episodes that rewards have looked at: all but those marked with this call's."""
        for old in [key for key in self.kept if key != marked_with(call)]:
            self.environment.end(self.kept.pop(old))

    def play(self, episodes: Sequence[Episode], call: GenerationCall) -> list[Generation]:
        """Play episodes from their beginning to their end."""
        ids = [episode.id for episode in episodes]
        try:
            self.begin(episodes)
            for turn in range(1, self.limits.max + 1):
                if live := [episode for episode in episodes if episode.live]:
                    self.go_on(live, self._sampled(live, call, turn))
            done = self._finished(episodes)
        except BaseException:
            self.environment.end(ids)
            raise
        if self.looked_at:
            self.kept.setdefault(marked_with(call), []).extend(ids)
        else:
            self.environment.end(ids)
        return done

    def _finished(self, episodes: Sequence[Episode]) -> list[Generation]:
        """The responses of episodes that are over, with their own rewards."""
        ids = [episode.id for episode in episodes]
        rewards = self.environment.rewards(ids)
        handles = self.environment.handles(ids) if self.looked_at else [None] * len(ids)
        rows = zip(episodes, rewards, handles, strict=True)
        return [episode.finished(reward, handle) for episode, reward, handle in rows]

    def finish(self, episodes: Sequence[Episode]) -> list[Generation]:
        """The same, and the environment forgets them."""
        done = self._finished(episodes)
        self.environment.end([episode.id for episode in episodes])
        return done

    def begin(self, episodes: Sequence[Episode]) -> None:
        """Begin episodes; what the environment adds to a prompt is encoded with it."""
        again = self.environment.again([episode.id for episode in episodes])
        texts = self.environment.begin([episode.start for episode in episodes])
        states = self.environment.states([episode.id for episode in episodes])
        encoded: dict[tuple[str, str], Prompt] = {}
        for episode, text, repeated, state in zip(episodes, texts, again, states, strict=True):
            said = (episode.start.row["prompt"], text) if state is None else state
            episode.states.append(state_number(said))
            episode.begun = self.now()
            episode.counts[RESTARTED] += int(repeated)
            if text:
                key = (episode.prompt.prompt_id, text)
                if key not in encoded:
                    encoded[key] = self._with_text(episode, text)
                episode.prompt, episode.added = encoded[key], True

    def _with_text(self, episode: Episode, text: str) -> Prompt:
        prompt = episode.prompt
        asked = with_text(prompt.text_or_messages, text)
        tools = self.environment.schemas(episode.start.row)
        ids = torch.tensor(self.encoder.encode(asked, tools), dtype=torch.int64)
        limit = self.config.max_prompt_length
        if len(ids) > limit:
            raise UserError(
                f"the environment's first text makes a prompt of {len(ids)} tokens, more than "
                f"rollout.max_prompt_length={limit}; raise it"
            )
        return replace(prompt, text_or_messages=asked, ids=ids)

    def _sampled(
        self, live: Sequence[Episode], call: GenerationCall, turn: int
    ) -> list[Generation]:
        """The next turn of every live episode, in one batch."""
        name, step, number = call.stream
        found = self.inner.generate(
            GenerationCall(
                together([episode.request for episode in live]),
                (f"{name}/turn-{turn}", step, number),
                greedy=call.greedy,
                sampling=call.sampling,
                numbers=[episode.number for episode in live],
            )
        )
        return [generation for group in found for generation in group]

    def go_on(self, live: Sequence[Episode], turns: Sequence[Generation]) -> None:
        """Hand each episode's turn to the environment, unless it is full; note what comes back."""
        for episode, generation in zip(live, turns, strict=True):
            episode.says(generation)
            if generation.finish_reason == LENGTH:
                text = self._text(generation, special=False)
                episode.messages.append({"role": "assistant", "content": text})
                episode.ends(LENGTH)
        acting = [episode for episode in live if episode.live]
        if not acting:
            return
        texts = [self._text(episode.last, special=True) for episode in acting]
        ids = [episode.id for episode in acting]
        answers = self.environment.step(ids, texts)
        told = (self.environment.states(ids), self.environment.turn_rewards(ids))
        for episode, observation, state, earned in zip(acting, answers, *told, strict=True):
            episode.takes(observation)
            episode.earned.append(earned)
            said = [(message["role"], message["content"]) for message in observation.messages]
            episode.states.append(state_number(said if state is None else state))
            reason = self._reason(episode, observation)
            if reason is None:
                reason = self._shown(episode, observation)
            if reason is not None:
                episode.ends(reason)

    def _reason(self, episode: Episode, observation: Observation) -> str | None:
        """Why an episode ends after an answer of the environment; None = it goes on."""
        limit = self.limits.seconds
        if observation.done:
            return observation.finish_reason
        if not observation.messages:
            raise UserError(
                "the environment neither ended an episode nor said anything to go on with; its "
                "step() returns a message or done=True"
            )
        if episode.counts[TURNS] == self.limits.max:
            return MOST_TURNS
        return LATE if limit is not None and self.now() - episode.begun > limit else None

    def _shown(self, episode: Episode, observation: Observation) -> str | None:
        """Append what the environment says; LENGTH if no token of a next turn had room.

        UNWRITABLE if the chat template refuses it: what a policy calls and how often is in these
        messages, and the run has seen at its start that the template writes an ordinary one.
        """
        tokenizer = self.policy.tokenizer
        messages = cut_messages(observation.messages, self.limits.max_observation_tokens, tokenizer)
        try:
            ids = observation_ids(tokenizer, episode.last.response_ids.tolist(), messages)
        except UserError:
            return UNWRITABLE
        if episode.length + len(ids) >= episode.longest:
            return LENGTH
        episode.hears(messages, ids)
        return None

    def _text(self, generation: Generation, *, special: bool) -> str:
        tokenizer = self.policy.tokenizer
        return str(tokenizer.decode(generation.response_ids, skip_special_tokens=not special))


def marked_with(call: GenerationCall) -> tuple[str | int, ...]:
    """What calls have in common whose responses are marked together.

    The greedy responses of a training step are marked after its others; each call of an evaluation
    is marked before the next is made.
    """
    return call.stream if call.evaluates else call.stream[1:]
