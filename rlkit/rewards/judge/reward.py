"""Another model, behind an OpenAI-compatible endpoint, scores the responses."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.config.cache import cache_home
from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.registry import register
from rlkit.rewards.judge.cache import key_of, opened
from rlkit.rewards.judge.endpoint import Endpoint, Fault, Model, is_local
from rlkit.rewards.judge.settings import JudgeConfig
from rlkit.rewards.judge.template import check_names, filled, names_in
from rlkit.rewards.judge.verdict import in_object, matched, number_of, to_unit
from rlkit.rewards.waiting import run_awaitable

log = logging.getLogger(__name__)

Answers = Mapping[str, str | Fault]


@register("reward", "judge")
class Judge(Reward[JudgeConfig]):
    """The score that a model behind an OpenAI-compatible endpoint gives.

    With the default settings a number from 0 to 1, which is N / 10 of "Score: N". Equal requests
    are made once, and their answers are kept on disk. None for a row that lacks something the
    template asks for, and, by choice, for an answer without a score or a request that failed: never
    0. docs/judge.md has examples. Status: our choice.
    """

    beside_others = True
    costly = True
    caches = ("_counts", "_model", "_told")

    def __init__(self, config: JudgeConfig | None = None) -> None:
        super().__init__(config)
        self._counts: Counter[str] = Counter()
        self._model: Model | None = None
        self._told = False

    @property
    def name(self) -> str:
        """What messages call it: a variant by its own name."""
        return "judge" if type(self) is Judge else type(self).__name__

    def notes(self) -> Sequence[str]:
        """What may go wrong with the settings."""
        c = self.config
        out = []
        if c.key_variable and c.address.startswith("http://") and not is_local(c.address):
            out.append(
                f"Warning: reward '{self.name}' sends its key to {c.address} without encryption."
            )
        if not c.cache:
            out.append(
                f"Warning: with reward.{self.name}.cache=false a resumed run asks for its scores "
                "again, and may get others."
            )
        return out

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score per completion.

        Raises UserError for a name in the template that is no column, if the endpoint cannot be
        reached, and as `unparsed` and `failed` say.
        """
        given = {"prompt": prompts, "completion": completions, **columns}
        given.pop("completion_ids", None)
        wanted = names_in(self.config.template)
        check_names(wanted, given, f"reward.{self.name}.template")
        texts = [
            filled(self.config.template, {name: given[name][i] for name in wanted})
            for i in range(len(completions))
        ]
        answers: Answers = run_awaitable(self._answers([t for t in texts if t is not None]))
        return [None if text is None else self._score(answers[text]) for text in texts]

    def counts(self) -> dict[str, int]:
        """The "unparsed" answers, and the "timeouts" and "errors" of requests, since the last call.

        They count by response.
        """
        counts, self._counts = self._counts, Counter()
        return {"unparsed": 0, **counts}

    async def _answers(self, texts: Sequence[str]) -> Answers:
        """What the judge says to each text, which is asked once."""
        c = self.config
        endpoint = Endpoint(self.name, c)
        async with endpoint.client() as client:
            if self._model is None:
                self._model = await endpoint.model(client)
            model = self._model
            bodies = {text: self._body(model, text) for text in dict.fromkeys(texts)}
            keys = {text: key_of(model.name, model.root, body) for text, body in bodies.items()}
            with opened(self._folder) as cache:
                known: dict[str, str | Fault] = {**cache.known(list(keys.values()))}
                new = {keys[t]: body for t, body in bodies.items() if keys[t] not in known}
                known |= await endpoint.answers(client, new, cache.keep)
        return {text: known[key] for text, key in keys.items()}

    @property
    def _folder(self) -> Path | None:
        """Where answers are kept, if they are."""
        c = self.config
        own = Path(c.cache_dir).expanduser() if c.cache_dir else cache_home() / "judge"
        return own if c.cache else None

    def _body(self, model: Model, text: str) -> dict[str, Any]:
        """The request: a chat with one question."""
        c = self.config
        system = [] if c.system is None else [{"role": "system", "content": c.system}]
        sampling = {"temperature": c.temperature, "top_p": c.top_p, "max_tokens": c.max_tokens}
        return {
            "model": model.name,
            "messages": [*system, {"role": "user", "content": text}],
            **{key: value for key, value in sampling.items() if value is not None},
            **(c.extra or {}),
        }

    def _score(self, answer: str | Fault) -> float | None:
        """The number in an answer. Raises UserError without one, if that is to be an error."""
        c = self.config
        if isinstance(answer, Fault):
            self._counts[answer.kind] += 1
            return None
        word = matched(answer, c.pattern) if c.field is None else in_object(answer, c.field)
        number = None if word is None else number_of(word, c.values, c.lowest, c.highest)
        if number is not None:
            return to_unit(number, c.lowest, c.highest) if c.scale else number
        self._counts["unparsed"] += 1
        said = f"an answer without a score from {c.lowest:g} to {c.highest:g}: {ending(answer)!r}"
        if c.unparsed == "error":
            raise UserError(
                f"reward '{self.name}' got {said}; change reward.{self.name}.template or how the "
                f"score is read, or leave such responses out: reward.{self.name}.unparsed=none"
            )
        if not self._told:
            self._told = True
            log.warning("reward '%s' got %s; reward/unparsed counts them", self.name, said)
        return None


def ending(text: str, length: int = 80) -> str:
    """The end of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"...{line[-length:]}"
