"""Names that are paths, and a hub that is asked once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from rlkit.config.hub import from_hub, looks_like_path, no_folder, packaged
from rlkit.errors import UserError


@pytest.mark.parametrize("name", ["./a", "../a/b", "/a", "~/a", "a/b/c", "."])
def test_a_path(name: str) -> None:
    assert looks_like_path(name)


@pytest.mark.parametrize("name", ["gpt2", "openai/gsm8k"])
def test_a_name(name: str) -> None:
    assert not looks_like_path(name)


def test_a_file_inside_a_package() -> None:
    assert Path(packaged("pkg://rlkit/py.typed", "task.path")).is_file()
    assert packaged("~/a", "task.path") == str(Path.home() / "a")
    assert packaged("a/b", "task.path") == "a/b"
    with pytest.raises(
        UserError, match=r"task\.path=pkg://no_such/a: the Python package 'no_such'"
    ):
        packaged("pkg://no_such/a", "task.path")


class Hub:
    """Answers with an error, or finds everything."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, []  # type: ignore[var-annotated]

    def __call__(self) -> Hub:
        return self

    def model_info(self, name: str, timeout: float) -> None:
        self.asked.append(name)
        if self.error is not None:
            raise self.error

    dataset_info = model_info


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def answers(error: Exception | None = None) -> Hub:
        made = Hub(error)
        monkeypatch.setattr(huggingface_hub, "HfApi", made)
        return made

    return answers


def failure(status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("no", response=response)


def test_what_the_hub_has_is_loaded_from_it(hub: Any) -> None:
    made = hub()
    with from_hub("model", "a/b", "model.name=a/b"):
        assert not constants.HF_HUB_OFFLINE
    assert made.asked == ["a/b"]


@pytest.mark.parametrize("error", [ConnectionError("no"), TimeoutError(), failure(503)])
def test_without_a_network_the_cache_is_all_there_is(hub: Any, error: Exception) -> None:
    made = hub(error)
    with from_hub("dataset", "a/b", "a/b"):
        assert constants.HF_HUB_OFFLINE, "the libraries do not try again"
    assert made.asked == ["a/b"] and not constants.HF_HUB_OFFLINE


def test_where_it_is_switched_off_the_hub_is_not_asked(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with from_hub("model", "a/b", "a/b"):
        assert constants.HF_HUB_OFFLINE
    assert made.asked == []


def test_what_the_hub_does_not_have_is_refused(hub: Any) -> None:
    hub(failure(404))
    with (
        pytest.raises(UserError, match="model.name=a/b does not exist here.*no such model"),
        from_hub("model", "a/b", "model.name=a/b"),
    ):
        pass


def test_another_error_is_not_hidden(hub: Any) -> None:
    hub(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError), from_hub("model", "a/b", "a/b"):
        pass


def test_why_there_is_no_folder_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwem").touch()
    assert no_folder(tmp_path / "qwem") == "that is a file; give the folder of the model"
    assert no_folder(tmp_path / "qwn") == "there is no such folder. Did you mean 'qwen'?"
    assert no_folder(tmp_path / "a" / "b") == f"there is no folder {tmp_path / 'a'}"
