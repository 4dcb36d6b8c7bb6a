"""A scripted policy in TRL's documented environment: every token, log-prob and version by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from rlkit.batch import Request
from rlkit.config.turns import TurnsConfig
from rlkit.interfaces import PartConfig
from rlkit.models.policy import Policy
from rlkit.registry import from_import_path
from rlkit.rollout.base import Generation, GenerationCall, RolloutConfig, RolloutEngine
from rlkit.rollout.turns import TurnsEngine
from rlkit.tasks.prompts import Prompts
from tests.environments.templates import QWEN3, tokenizer

USERS = Path(__file__).parents[1] / "environments" / "users"
END = "<|im_end|>"


def calling(step: object) -> str:
    return f'<tool_call>{{"name": "increment", "arguments": {{"step": {step}}}}}</tool_call>{END}'


class Scripted(RolloutEngine[RolloutConfig]):
    """Says the turns it is given; token i of turn t has log-prob -t - i / 100 and version t."""

    Config: ClassVar[type[PartConfig]] = RolloutConfig

    def __init__(self, turns: Sequence[Sequence[str]]) -> None:
        super().__init__(RolloutConfig(max_completion_length=2000, max_prompt_length=2000))
        self.turns, self.seen = turns, list[list[str]]()

    def start(self, policy: Policy, seed: int) -> None:
        self.tokenizer = policy.tokenizer

    def sync(self, step: int) -> None:
        pass

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        turn = int(call.stream[0].rpartition("-")[2])
        assert call.numbers is not None
        rows = [request for request in call.requests for _ in range(request.n)]
        self.seen.append([str(self.tokenizer.decode(request.ids)) for request in rows])
        made = iter([self._said(self.turns[number][turn - 1], turn) for number in call.numbers])
        return [[next(made) for _ in range(request.n)] for request in call.requests]

    def _said(self, text: str, turn: int) -> Generation:
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Generation(
            response_ids=ids,
            logp=-turn - torch.arange(len(ids)) / 100,
            policy_version=torch.full((len(ids),), turn, dtype=torch.int32),
            finish_reason="stop",
            extras={},
        )


@pytest.fixture
def play(own_registry: None) -> Iterator[Any]:
    """Plays the turns of each response in TRL's example."""
    cls = from_import_path("environment", f"{USERS}/increment.py:IncrementEnv").cls
    environment, made = cls(), tokenizer(QWEN3)

    def played(*turns: Sequence[str], **limits: Any) -> tuple[Scripted, list[Generation]]:
        script = Scripted(turns)
        engine = TurnsEngine(script, environment, TurnsConfig(**limits), looked_at=True)
        engine.start(SimpleNamespace(tokenizer=made), seed=1)  # type: ignore[arg-type]
        row = {"prompt": [{"role": "user", "content": "Go. "}]}
        (prompt,) = Prompts("train", [row], made, "auto", environment.schemas)[:1]
        found = engine.generate(
            GenerationCall([Request(prompt=prompt, n=len(turns))], ("rollout", 1, 0))
        )
        return script, found[0]

    yield played
    environment.close()


@pytest.mark.filterwarnings("ignore")
def test_a_tool_s_answer_is_read_and_only_what_was_said_is_trained(play: Any) -> None:
    script, (one, two, three) = play(
        [calling(2), f"so{END}"],
        [calling(1), calling('"x"'), f"done{END}"],
        [f"nothing{END}"],
    )
    for number, (g, turns) in enumerate(((one, 2), (two, 3), (three, 1))):
        assert g.finish_reason == "stop" and g.played.counts["turns"] == turns
        assert script.tokenizer.decode(g.response_ids[g.loss_mask]) == "".join(script.turns[number])
        shown = script.tokenizer.decode(g.response_ids[~g.loss_mask])
        assert shown.count("<tool_response>") == turns - 1
        expected = [
            -t - i / 100
            for t, turn in enumerate(script.turns[number], start=1)
            for i in range(len(script.tokenizer(turn, add_special_tokens=False)["input_ids"]))
        ]
        torch.testing.assert_close(g.logp[g.loss_mask], torch.tensor(expected))
        assert (g.logp[~g.loss_mask] == 0).all()
        versions = g.policy_version[g.loss_mask].tolist()
        assert versions == sorted(versions) and set(versions) == set(range(1, turns + 1))
    asked = two.played.asked
    assert asked[0]["content"].startswith("Go. Increment the counter by ")
    assert one.played.asked == two.played.asked, "the responses to a prompt start alike"


@pytest.mark.filterwarnings("ignore")
def test_each_turn_is_sampled_after_the_tokens_themselves(play: Any) -> None:
    """The prefix of turn t is prompt, turns and answers as they are, never rendered again."""
    script, (one, _) = play(
        [calling(2), calling(3), f"so{END}"], [calling(1), f"<think>why</think>{END}"]
    )
    first, second, third = script.seen
    assert first[0] == first[1] and "increment" in first[0]
    assert second[0].startswith(first[0] + calling(2)) and second[1].startswith(
        first[1] + calling(1)
    )
    assert third[0].startswith(second[0] + calling(3)) and len(third) == 1
    whole = torch.cat([one.played.prompt_ids, one.response_ids])
    assert script.tokenizer.decode(whole) == third[0] + f"so{END}"
    assert "5" in third[0][len(second[0]) :], "the counter is the episode's own"


@pytest.mark.filterwarnings("ignore")
def test_counts_rewards_and_handles_are_those_of_the_episode(play: Any) -> None:
    _, (one, two, three) = play(
        [calling(2), f"so{END}"],
        [calling('"x"'), f"<tool_call>{{oops</tool_call>{END}", f"done{END}"],
        [END],
    )
    counts = [g.played.counts for g in (one, two, three)]
    assert [c["calls"] for c in counts] == [1, 1, 0]
    assert [c["failed_calls"] for c in counts][0::2] == [0, 0]
    assert [c["unparsable"] for c in counts] == [0, 1, 0]
    assert [c["void_turns"] for c in counts] == [0, 0, 1]
    target = int(one.played.asked[0]["content"].rpartition(" ")[2].rstrip("."))
    assert [g.played.reward for g in (one, three)] == [float(target == 2), float(target == 0)]
    assert [g.played.handle.counter for g in (one, three)] == [2, 0]
    roles = [message["role"] for message in one.played.messages]
    assert roles == ["assistant", "tool", "assistant"]
    assert one.played.messages[0]["tool_calls"][0]["function"]["arguments"] == {"step": 2}
