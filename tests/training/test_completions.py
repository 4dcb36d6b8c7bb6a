"""What a step leaves of its responses: rows of completions, and the tokens of a few groups."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.batch import Group
from rlkit.config.saving import CompletionsConfig
from rlkit.models.policy import Policy
from rlkit.runs.folder import RunFolder
from rlkit.runs.token_file import read_tokens, token_file
from rlkit.training.completions import Steps, TokenRows, completion_rows, groups_kept
from rlkit.training.trainer import Trainer
from tests.sessions import config_of, make_session
from tests.steps import move, parts, prepared, rollout, updater_of
from tests.training.test_trainer import Returning


def test_a_row_of_the_completions_says_what_was_trained(policy: Policy) -> None:
    old = rollout(policy, 2, n=2, prompts=1)
    move(policy)
    fresh = rollout(policy, 5, n=2, prompts=2)[1:]
    groups = [*fresh, *old]
    batch = prepared(policy, groups, 5, parts())
    loss = replace(batch.loss, replayed=torch.tensor([False, False, True, True]))
    rows = completion_rows(groups, replace(batch, loss=loss), 5, policy.tokenizer)
    sample = old[0].samples[1]
    assert rows[3] == {
        "prompt_id": old[0].prompt.prompt_id,
        "group": 1,
        "sample_id": 201,
        "prompt": "0+0=",
        "response": policy.tokenizer.decode(sample.response_ids, skip_special_tokens=True),
        "tokens": len(sample.response_ids),
        "source": "policy",
        "made_at": 2,
        "age": 3,
        "replayed": True,
        "finish_reason": sample.finish_reason,
        "reward": sample.reward,
        "advantage": pytest.approx(float(batch.loss.advantage[3, 0])),
        "rewards": {"one": sample.reward},
    }
    assert [row["replayed"] for row in rows] == [False, False, True, True]
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [2, 2]),
        ({"every": 2}, [0, 2]),
        ({"every": None}, [0, 0]),
        ({"tokens_per_step": 0}, [0, 0]),
    ],
)
def test_tokens_are_kept_where_responses_are(settings: dict[str, Any], kept: list[int]) -> None:
    config = CompletionsConfig.model_validate(settings)
    assert [groups_kept(config, step) for step in (1, 2)] == kept


def trained(policy: Policy, folder: Path, **train: Any) -> list[Group]:
    """Three steps; from the second on, the responses of the step before are replayed beside."""
    buffer = Returning()
    config = config_of(folder, steps=3, learning_rate=1e-2, **train)
    config = config.model_copy(update={"completions": CompletionsConfig(tokens_per_step=9)})
    Trainer(make_session(policy, folder, buffer=buffer, config=config)).run()
    return buffer.groups


def jsonl(folder: Path, step: int) -> list[dict[str, Any]]:
    text = (folder / "completions" / f"step-{step}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_tokens_belong_to_their_responses(policy: Policy, tmp_path: Path) -> None:
    """Every group is kept here: 4 new responses, and 4 of the step before."""
    trained(policy, tmp_path, updates_per_batch=2)
    for step, replayed in ((1, []), (2, [1] * 4), (3, [1] * 4)):
        rows = read_tokens(token_file(tmp_path, step))
        lines = jsonl(tmp_path, step)
        assert [row["age"] for row in rows] == [0] * 4 + replayed
        assert [row["replayed"] for row in rows] == [False] * 4 + [bool(r) for r in replayed]
        for row, line in zip(rows, lines, strict=True):
            shared = row.keys() & line.keys() - {"advantage"}
            assert {name: row[name] for name in shared} == {name: line[name] for name in shared}
            assert row["advantage"] == pytest.approx(line["advantage"], abs=1e-6)
            assert row["step"] == step and row["passes"] == 2 and not row["skipped"]
            text = policy.tokenizer.decode(row["token_ids"])
            assert "".join(row["pieces"]) == text
            assert text.replace("<eos>", "").replace("<pad>", "") == line["response"]
            assert {len(v) for v in row.values() if isinstance(v, list)} == {line["tokens"]}
            assert set(row["policy_version"]) == {row["made_at"]}
            assert row["advantages"] == pytest.approx([row["advantage"]] * line["tokens"], abs=1e-6)


def test_log_probs_of_a_replayed_response_are_those_it_was_sampled_with(
    policy: Policy, tmp_path: Path
) -> None:
    """Step 2 reads what step 1 stored; its own log-probs differ, since the weights have moved."""
    trained(policy, tmp_path)
    first = {row["sample_id"]: row for row in read_tokens(token_file(tmp_path, 1))}
    second = [row for row in read_tokens(token_file(tmp_path, 2)) if row["replayed"]]
    assert {row["sample_id"] for row in second} == set(first)
    for row in second:
        before = first[row["sample_id"]]
        assert row["behavior_logp"] == before["behavior_logp"]
        assert row["token_ids"] == before["token_ids"]
        assert before["logp"] == pytest.approx(before["behavior_logp"], abs=1e-4)
        assert row["prox_logp"] == pytest.approx(row["logp"], abs=1e-4), "ppo: pi_k is read"
        assert row["ratio"] == pytest.approx([1.0] * len(row["ratio"]), abs=1e-4)
        assert row["last_logp"] is None
    moved = [
        abs(a - b) for row in second for a, b in zip(row["logp"], row["behavior_logp"], strict=True)
    ]
    assert max(moved) > 1e-3


def test_log_probs_nobody_took_are_not_there(policy: Policy, tmp_path: Path) -> None:
    """opmd reads the behavior policy alone."""
    config = config_of(tmp_path, steps=1)
    Trainer(make_session(policy, tmp_path, config=config, parts=parts("opmd"))).run()
    rows = read_tokens(token_file(tmp_path, 1))
    assert rows and all(row["prox_logp"] is None and row["clipped"] is None for row in rows)
    assert all(row["behavior_logp"] is not None for row in rows)


def test_what_a_demonstration_was_sampled_with_is_not_known(policy: Policy) -> None:
    groups = rollout(policy, 1, n=2, prompts=1)
    batch = prepared(policy, groups, 1, parts())
    seen = updater_of(policy, parts()).run(batch, 1, 1, tokens_of=1).seen
    assert seen is not None
    shown = replace(seen, loss=replace(seen.loss, expert=torch.tensor([False, True])))
    rows = TokenRows(shown, set(), policy.tokenizer, prox_taken=True)
    own, expert = rows.of(groups, batch, Steps(1, 1))
    assert own["behavior_logp"] is not None and expert["behavior_logp"] is None
    assert expert["logp"] is not None


def test_a_process_that_does_not_write_decodes_nothing(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(policy, tmp_path / "own", config=config_of(tmp_path, steps=1))
    session = replace(session, run_folder=RunFolder(tmp_path / "other", writes=False))
    monkeypatch.setattr("rlkit.training.completions.completion_rows", None)
    monkeypatch.setattr("rlkit.training.trainer.try_save", lambda state: None)
    monkeypatch.setattr("rlkit.training.state.TrainState.save", lambda state, needed: None)
    assert Trainer(session).run()
    assert not (tmp_path / "other").exists()
