"""Loading a reward model, and the mean of several models' weights (WARM)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlkit.errors import UserError
from rlkit.rewards.learned.load import add_to_mean, load_models
from tests.reward_models import make_reward_model, save_reward_model
from tests.tiny import make_policy, make_tokenizer


def test_the_mean_of_three_is_that_of_their_weights(tmp_path: Path) -> None:
    """Against the mean in float64 of what transformers loads."""
    paths = [save_reward_model(tmp_path / str(seed), seed) for seed in range(3)]
    model, _ = load_models(paths, torch.float32)
    each = [AutoModelForSequenceClassification.from_pretrained(p).state_dict() for p in paths]
    for name, tensor in model.state_dict().items():
        mean = torch.stack([one[name].double() for one in each]).mean(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=0, atol=1e-7)
        assert not torch.allclose(tensor, each[0][name]) or "norm" in name


def test_the_mean_of_the_same_model_is_that_model_bit_for_bit(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path)
    one, _ = load_models([path], torch.float32)
    mean, _ = load_models([path] * 3, torch.float32)
    weights = one.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in mean.state_dict().items())


def test_integers_are_not_averaged() -> None:
    mean = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor([3])}
    add_to_mean(mean, {"w": torch.tensor([3.0, -2.0]), "n": torch.tensor([5])}, 2)
    assert mean["w"].tolist() == [2.0, 0.0] and mean["n"].tolist() == [3]


def test_a_mean_is_rounded_once_at_the_end(tmp_path: Path) -> None:
    paths = [save_reward_model(tmp_path / str(seed), seed) for seed in range(2)]
    full, _ = load_models(paths, torch.float32)
    half, _ = load_models(paths, torch.bfloat16)
    assert half.score.weight.dtype is torch.bfloat16
    assert torch.equal(half.score.weight, full.score.weight.bfloat16())


def test_other_vocabularies_have_no_mean(tmp_path: Path) -> None:
    one, other = (save_reward_model(tmp_path / name) for name in "ab")
    changed = make_tokenizer()
    changed.add_tokens(["x"])
    changed.save_pretrained(other)
    with pytest.raises(UserError, match="have different vocabularies"):
        load_models([one, other], torch.float32)
    chat = save_reward_model(tmp_path / "c", chat=True)
    with pytest.raises(UserError, match="have different vocabularies|chat templates"):
        load_models([one, chat], torch.float32)


def test_a_causal_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    """It would score with random weights."""
    model = make_policy().model
    model.config.num_labels = 1
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no trained reward model: its files lack score\.weight"):
        load_models([str(tmp_path)], torch.float32)


def test_a_name_that_the_hub_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"reward\.model\.path=nobody/nothing cannot be loaded"):
        load_models(["nobody/nothing"], torch.float32)


def test_loading_leaves_the_random_state_and_drops_nothing_out(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path, attention_dropout=0.5)
    before = torch.random.get_rng_state()
    model, _ = load_models([path], torch.float32)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_padding_is_known_where_only_the_end_of_sequence_is(tmp_path: Path) -> None:
    """As in TRL's trainer; without either it is refused."""
    model = make_reward_model()
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_models([str(tmp_path)], torch.float32)[0].config.pad_token_id == 1
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a padding nor an end-of-sequence token"):
        load_models([str(tmp_path)], torch.float32)
