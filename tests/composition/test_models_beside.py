"""A teacher by name or folder: loaded with its own dtype, refused with one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlkit.composition.base_model import model_folder
from rlkit.composition.composition import Composition
from rlkit.composition.models_beside import folder_of, load_beside, model_opener
from rlkit.composition.session import policy_of
from rlkit.config.run import EMBEDDED
from rlkit.errors import UserError
from rlkit.interfaces import ModelSource
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.embedded_calls import calls_model_dir
from rlkit.models.fixed import LoadedModel
from rlkit.models.policy import Policy
from rlkit.training.collate import collate
from tests.compositions import composed
from tests.steps import rollout
from tests.tiny import make_policy


@pytest.fixture(scope="module")
def run() -> tuple[Composition, Policy]:
    c = composed("model.device=cpu", "model.lora.r=4", "model.autocast=bfloat16")
    plain = composed("model.device=cpu")
    return c, policy_of(plain, None)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Another architecture's size, with the embedded model's tokenizer."""
    policy = make_policy(seed=5)
    policy.model.save_pretrained(tmp_path)
    policy_of(composed("model.device=cpu"), None).tokenizer.save_pretrained(tmp_path)
    return tmp_path


def source(path: str | None, **settings: str) -> ModelSource:
    return ModelSource(path=path, setting="anchor.path", **settings)


def test_a_folder_is_loaded_frozen_with_its_own_dtype(
    run: tuple[Composition, Policy], teacher: Path
) -> None:
    """Without the adapters of the policy; a dtype of its own puts the policy's autocast aside."""
    said: list[str] = []
    c, policy = run
    found = model_opener(c, policy, said.append)(source(str(teacher), dtype="float32"))
    assert isinstance(found, LoadedModel) and found.reading.head is not None
    assert found.reading.autocast is None and found.model.dtype == torch.float32
    tokens = collate(rollout(policy, 1, n=2, prompts=2), 1).tokens
    expected = make_policy(seed=5, temperature=policy.temperature).logp(tokens)
    torch.testing.assert_close(found.logp(tokens), expected, atol=1e-5, rtol=1e-5)
    assert said == [f"anchor.path={teacher}, float32 on cpu."]
    half = model_opener(c, policy, said.append)(source(str(teacher), dtype="bfloat16"))
    assert isinstance(half, LoadedModel) and half.model.dtype == torch.bfloat16
    assert half.number != found.number
    own = model_opener(c, policy, said.append)(source(str(teacher)))
    assert isinstance(own, LoadedModel) and own.reading.autocast == torch.bfloat16


def test_another_tokenizer_is_refused(run: tuple[Composition, Policy], teacher: Path) -> None:
    """Also one with a single token more."""
    tokenizer = make_policy().tokenizer
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(teacher)
    with pytest.raises(UserError, match=r"^anchor\.path=.* has another tokenizer .* same tokens"):
        model_opener(*run, print)(source(str(teacher)))


def test_what_is_no_model_is_one_line(run: tuple[Composition, Policy], tmp_path: Path) -> None:
    opened = model_opener(*run, print)
    with pytest.raises(UserError, match=r"^anchor\.path=.* is not a model folder"):
        opened(source(str(tmp_path)))
    with pytest.raises(UserError, match=r"^anchor\.path=\./nowhere: there is no such folder"):
        opened(source("./nowhere"))
    with pytest.raises(UserError, match=r"^anchor\.device=cuda:99"):
        opened(source(str(tmp_path), device="cuda:99"))


def test_only_the_embedded_model_may_do_without(run: tuple[Composition, Policy]) -> None:
    """It is told so; other models need a teacher."""
    said: list[str] = []
    c, policy = run
    assert model_opener(c, policy, said.append)(source(None)) is None
    assert "nothing to learn" in said[0]
    named = c.config.model.model_copy(update={"name": "some/model"})
    real = replace(c, config=c.config.model_copy(update={"model": named}))
    with pytest.raises(UserError, match=r"needs anchor\.path: the name or folder"):
        model_opener(real, policy, print)(source(None))


def test_the_embedded_teacher_knows_the_problems_of_the_run() -> None:
    """With environment=calculator it is the model that writes calls."""
    calls = composed("model.device=cpu", "environment=calculator", "algorithm=grpo")
    assert folder_of(calls, EMBEDDED) == str(calls_model_dir(0)) == model_folder(calls)


def test_names_of_folders(run: tuple[Composition, Policy]) -> None:
    c, policy = run
    assert folder_of(c, EMBEDDED) == str(embedded_model_dir(0))
    assert folder_of(c, "~/x") == str(Path("~/x").expanduser())
    assert folder_of(c, "org/name") == "org/name"
    loaded = load_beside(c, policy, folder_of(c, EMBEDDED), "anchor.path", name=EMBEDDED)
    assert not any(p.requires_grad for p in loaded.model.parameters())
