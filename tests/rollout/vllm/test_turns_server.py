"""Episodes whose turns a vLLM server samples: tokens, weights, a pool over steps, a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlkit.config.turns import TurnsConfig
from rlkit.interfaces import Tokens
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation
from rlkit.rollout.turns import TurnsEngine
from rlkit.rollout.turns_partial import PartialTurns
from rlkit.rollout.vllm.client import API_KEY
from rlkit.rollout.vllm.server import VLLMServerConfig, VLLMServerRollout
from tests import callers
from tests.cli import metrics, run
from tests.rollout.echo import Echo, EchoConfig, chat_policy
from tests.rollout.servers import KEY, ServerProcess
from tests.rollout.test_turns import call_of, flat, runs_of, same
from tests.rollout.test_turns_partial import stream_of, take
from tests.steps import move

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return chat_policy(hidden_size=64, intermediate_size=64, num_key_value_heads=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It holds another model at first."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("server")
    other = chat_policy(1, hidden_size=64, intermediate_size=64, num_key_value_heads=1)
    other.model.save_pretrained(folder / "model")
    other.tokenizer.save_pretrained(folder / "model")
    started = ServerProcess(folder / "model", folder / "log")
    try:
        started.wait()
        yield started
    finally:
        started.kill()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, KEY)


def engine_of(policy: Policy, server: ServerProcess, **fields: object) -> TurnsEngine:
    settings = {
        "addresses": [server.address],
        "max_completion_length": 60,
        "max_prompt_length": 60,
        "num_generations": 3,
    }
    config = VLLMServerConfig.model_validate({**settings, **fields})
    environment = Echo(EchoConfig(until=7))
    made = TurnsEngine(VLLMServerRollout(config), environment, TurnsConfig())
    made.start(policy, seed=5)
    return made


def test_its_turns_have_the_log_probs_and_versions_of_their_tokens(
    policy: Policy, server: ServerProcess
) -> None:
    """Before and after the weights move; what one asks for alone is what it gets among others."""
    engine, several = engine_of(policy, server), 0
    for step in (1, 2):
        engine.sync(step)
        call = call_of(policy)
        found = engine.generate(call)
        for request, group in zip(call.requests, found, strict=True):
            for g in group:
                whole = policy.logp(Tokens.of([request.prompt.ids], [g.response_ids]))[0]
                mask = g.loss_mask
                torch.testing.assert_close(g.logp[mask], whole[mask], atol=1e-4, rtol=0)
                assert (g.logp[~mask] == 0).all() and set(g.policy_version.tolist()) == {step}
                several += len(runs_of(mask)) > 1
        shares = [g for part in (slice(0, 1), slice(1, 4)) for g in _part(engine, policy, part)]
        assert all(same(a, b) for a, b in zip(flat(found), shares, strict=True))
        move(policy)
    assert several > 3


def _part(engine: TurnsEngine, policy: Policy, part: slice) -> list[Generation]:
    return flat(engine.generate(call_of(policy, part=part)))


def test_episodes_go_on_in_the_next_step(policy: Policy, server: ServerProcess) -> None:
    """With tokens of the weights of both steps, each with the log-prob of its own."""
    engine = engine_of(
        policy, server, oversample=1.0, round_tokens=4, max_completion_length=30, top_k=0
    )
    pool, prompts = PartialTurns(engine, greedy=False), stream_of(policy)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    mixed = 0
    for step in (1, 2, 3):
        kept[step] = {name: value.clone() for name, value in policy.model.state_dict().items()}
        for group in take(pool, prompts, step):
            for g in group.own:
                versions = set(g.policy_version.tolist())
                mixed += len(versions) > 1
                for version in versions:
                    policy.model.load_state_dict(kept[version])
                    whole = policy.logp(Tokens.of([group.prompt.ids], [g.response_ids]))[0]
                    mine = g.loss_mask & (g.policy_version == version)
                    torch.testing.assert_close(g.logp[mine], whole[mine], atol=1e-4, rtol=0)
        policy.model.load_state_dict(kept[step])
        move(policy)
    assert mixed


def test_a_run_trains_on_a_game_over_a_server(tmp_path: Path) -> None:
    """The engine follows the policy, and the episodes have several turns."""
    pytest.importorskip("vllm")
    made = callers.folder()
    server = ServerProcess(made / "model", tmp_path / "log")
    try:
        server.wait()
        result = run(
            *("algorithm=grpo", "train.steps=2", "train.prompts_per_step=2", "eval.every=null"),
            *("rollout.num_generations=3", "rollout.max_completion_length=200", "eval.problems=2"),
            *(
                "turns.max=4",
                "turns.max_observation_tokens=30",
                "turns.call_format=compact",
                "task=environment",
                "task.prompt=go ",
            ),
            *("task.chat_template=always", "environment=frozen_lake", "environment.size=3"),
            *("rollout=vllm_server", f'rollout.addresses=["{server.address}"]'),
            *("correction=[tis]", f"model.name={made}/model", "output_dir=out"),
            cwd=tmp_path,
            env={API_KEY: KEY},
        )
    finally:
        server.kill()
    assert result.status == 0, result.err
    rows = [row for row in metrics(tmp_path / "out") if "turns/mean" in row]
    assert len(rows) == 2 and max(row["turns/mean"] for row in rows) > 1
    assert all(row["off_policy/engine_difference_max"] < 1e-3 for row in rows)
    assert all(row["tools/calls"] > 0 for row in rows)
