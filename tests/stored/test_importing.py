"""Other tools' rollouts, imported and trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlkit.errors import UserError
from rlkit.models.embedded import embedded_model_dir
from rlkit.stored.card import Card
from rlkit.stored.importing import Imported, import_files
from rlkit.stored.read import StoredRollouts
from rlkit.tasks.encode import Encoder
from tests.stored.foreign import files

STEPS = 2


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    from transformers import AutoTokenizer

    return Encoder(AutoTokenizer.from_pretrained(embedded_model_dir(0)))


def imported(
    path: Path, source: str, encoder: Encoder, out: Path
) -> tuple[Imported, StoredRollouts]:
    found = import_files([path], source, out, encoder, Card(temperature=1.0))
    return found, StoredRollouts(str(out))


def test_token_ids_and_log_probs_stay_as_they_are(tmp_path: Path, encoder: Encoder) -> None:
    found, rollouts = imported(files.slime(tmp_path / "2.pt"), "slime", encoder, tmp_path / "o")
    (group,) = rollouts.groups([0])
    (sample,) = group.samples
    assert group.prompt.ids.tolist() == [4, 5, 6] and sample.response_ids.tolist() == [7, 8]
    assert sample.behavior_logp.tolist() == [-0.5, -0.25]
    assert sample.loss_mask.tolist() == [True, False]
    assert (found.encoded, found.unknown_logp) == (0, 0) and not rollouts.unknown_logp


def test_texts_are_encoded_with_their_end_and_counted(tmp_path: Path, encoder: Encoder) -> None:
    found, rollouts = imported(files.verl(tmp_path / "7.jsonl"), "verl", encoder, tmp_path / "o")
    assert (found.responses, found.groups, found.encoded, found.unknown_logp) == (3, 2, 3, 3)
    assert found.changed == 0 and rollouts.unknown_logp
    sample = rollouts.groups([0])[0].samples[0]
    assert sample.response_ids.tolist() == encoder.response("2")
    assert "3 have no behavior log-probs" in str(found)


def test_named_tokens_get_their_ids_and_the_end_is_masked(tmp_path: Path, encoder: Encoder) -> None:
    """The file gives no log-prob of the end of sequence, so the loss does not see it."""
    path = files.openai(tmp_path / "a.jsonl", chat=False)
    _, rollouts = imported(path, "openai", encoder, tmp_path / "o")
    whole, cut = rollouts.groups([0])[0].samples
    assert whole.response_ids.tolist() == encoder.response("12")
    assert whole.loss_mask.tolist() == [True, True, False]
    assert whole.behavior_logp.tolist() == [-0.5, -0.125, 0.0]
    assert cut.response_ids.tolist() == encoder.response("7")[:-1]


def test_a_file_without_texts_gets_them_from_its_tokens(tmp_path: Path, encoder: Encoder) -> None:
    """And a response has ended if its last token says so."""
    prompt, answer = encoder.encode("1+1="), encoder.response("2")
    rows = []
    for ids in (answer, answer[:-1]):
        tensors = {
            "tokens": torch.tensor([*prompt, *ids]),
            "action_mask": torch.ones(len(ids), dtype=torch.bool),
            "logprobs": torch.full((len(ids),), -0.5),
        }
        facts = {"task_id": "0", "model_version": 1, "reward": 1.0}
        rows.append({**facts, "experience_bytes": files.trinity_bytes(tensors)})
    path = files.trinity(tmp_path / "a.db", rows)
    found, rollouts = imported(path, "trinity", encoder, tmp_path / "out")
    (group,) = rollouts.groups([0])
    assert group.prompt.text_or_messages == "1+1="
    assert [s.finish_reason for s in group.samples] == ["stop", "length"]
    assert found.encoded == 0 and not rollouts.unknown_logp


def test_nothing_is_left_of_a_failed_import(tmp_path: Path, encoder: Encoder) -> None:
    two = {"content": [{"token": "12", "logprob": -1.0}]}
    wrong = files.openai(tmp_path / "a.jsonl", chat=False, logprobs=two)
    with pytest.raises(UserError, match=r"a\.jsonl line 1: '12' is not one token"):
        imported(wrong, "openai", encoder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
