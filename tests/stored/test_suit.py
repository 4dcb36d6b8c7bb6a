"""Rollouts that suit a run, others that are made to, and others that are refused."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Group
from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.interfaces import StoredData
from rlkit.stored import suit
from rlkit.stored.card import Card
from rlkit.stored.read import StoredRollouts
from rlkit.stored.suit import RECOMPUTED, Opener, SuitedRollouts
from rlkit.stored.write import RolloutWriter
from tests.ranks import on_ranks
from tests.stored.groups import ENCODER, TOKENIZER, all_own, group, without_logp


class Thirds:
    """A model under which every token has a log-prob of -1/3, which counts what it is asked."""

    name, weights = "thirds", "w1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, groups: Sequence[Group]) -> list[Tensor]:
        samples = [sample for each in groups for sample in each.samples]
        self.asked += [sample.sample_id for sample in samples]
        return [torch.full((len(s.response_ids),), -1 / 3) for s in samples]


def opener(temperature: float = 1.0, **changes: Any) -> Opener:
    return Opener(encoder=ENCODER, temperature=temperature, **changes)


def written(folder: Path, *groups: Group, **card: Any) -> str:
    RolloutWriter(folder, Card(**card), TOKENIZER).write(groups or [group(0)], 1, offset=0)
    return str(folder)


def opened(path: str, run: Opener | None = None, **asked: Any) -> SuitedRollouts:
    return (run or opener())(StoredData(path=path, **asked))


@pytest.fixture(autouse=True)
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suit, "tokenizer_hash", lambda tokenizer: "ours")


def test_the_same_tokenizer_and_temperature_suit(tmp_path: Path) -> None:
    assert len(opened(written(tmp_path, tokenizer="ours"))) == 1
    found = opened(written(tmp_path / "unknown"))
    assert len(found) == 1 and found.figures() == {}


def test_the_main_process_decides_which_files_all_ranks_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On opening and after it; rank 1 lists the folder before the run that writes it adds one."""
    writer = RolloutWriter(tmp_path, Card(), TOKENIZER)
    writer.write([group(0)], 1, offset=0)
    writer.write([group(3), group(6)], 2, offset=0)
    listed, early = StoredRollouts._files, set[str]()

    def seen(rollouts: StoredRollouts) -> dict[str, Path]:
        files = listed(rollouts)
        if rollouts.processes.rank == 1 and (last := max(files)) not in early:
            early.add(last)
            del files[last]
        return files

    monkeypatch.setattr(StoredRollouts, "_files", seen)

    def read(processes: Processes) -> list[int]:
        rollouts = opened(str(tmp_path), opener(processes=processes))
        before = len(rollouts)
        processes.on_main(lambda: writer.write([group(9)], 3, offset=0))
        rollouts.refresh()
        return [before, len(rollouts)]

    assert on_ranks(read) == [[3, 4], [3, 4]]


def test_another_tokenizer_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, all_own(group(0)), tokenizer="theirs")
    with pytest.raises(UserError, match=r"another tokenizer.*buffer\.other_tokenizer=encode"):
        opened(path)
    with pytest.raises(UserError, match=r"no behavior log-probs.*buffer\.score_with=base"):
        opened(path, other_tokenizer="encode")


def test_texts_of_another_tokenizer_are_encoded_and_counted(tmp_path: Path) -> None:
    """The stored text "abc" becomes its characters' codes and an end, but for the one of "length".

    Their log-probs were those of other tokens, so they count as missing.
    """
    said: list[str] = []
    path = written(tmp_path, all_own(group(1)), tokenizer="theirs")
    run = opener(reads_behavior=False, say=said.append)
    rollouts = opened(path, run, other_tokenizer="encode")
    assert said == [
        f"{path} is encoded again with this model's tokenizer: of the first 3 responses 0 decode "
        "to another text, and 6 tokens become 8."
    ]
    (found,) = rollouts.groups([0])
    assert found.prompt.ids.tolist() == [ord(c) for c in "question 1"]
    ids = [s.response_ids.tolist() for s in found.samples]
    assert ids == [[97, 0], [97, 98, 0], [97, 98, 99]]
    assert all(s.loss_mask.all() and s.behavior_logp.isnan().all() for s in found.samples)
    assert rollouts.figures() == {
        "encoded": 3.0,
        "encoded_changed": 0.0,
        "encoded_length_ratio": 8 / 6,
    }


def test_another_temperature_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, temperature=0.6)
    with pytest.raises(UserError, match=r"temperature 0\.6.*other_temperature=keep or rescore"):
        opened(path)
    assert len(opened(path, opener(0.6))) == 1
    kept = opened(path, other_temperature="keep").groups([0])[0].samples[2]
    assert torch.equal(kept.behavior_logp, group(0).samples[2].behavior_logp)


def test_another_temperature_is_rescored_by_the_model_that_is_named(tmp_path: Path) -> None:
    model = Thirds()
    run = opener(scorer=lambda name: model)
    asked: Any = {"score_with": "base", "other_temperature": "rescore"}
    path = written(tmp_path / "a", temperature=0.6)
    (found,) = opened(path, run, **asked).groups([0])
    assert all((s.behavior_logp == -1 / 3).all() for s in found.samples)
    same = opened(written(tmp_path / "b", temperature=1.0), run, **asked).groups([0])[0]
    assert torch.equal(same.samples[2].behavior_logp, group(0).samples[2].behavior_logp)
    assert len(model.asked) == 3


def test_missing_log_probs_are_computed_once_and_marked(tmp_path: Path) -> None:
    """Those that are stored stay. What was computed is read from the folder, not computed again."""
    said: list[str] = []
    model = Thirds()
    run = opener(scorer=lambda name: model, say=said.append)
    path = written(tmp_path / "data", without_logp(group(0), 1), group(3))
    rollouts = opened(path, run, score_with="named", folder=tmp_path / "scores")
    assert "recomputed under thirds (weights w1) at temperature 1.0" in said[0]
    first = rollouts.groups([0, 1])
    known = [s.behavior_logp.tolist() for g in first for s in g.samples]
    assert known[1] == pytest.approx([-1 / 3] * 2)
    assert known[2] == group(0).samples[2].behavior_logp.tolist()
    marked = [RECOMPUTED in s.extras for g in first for s in g.samples]
    assert marked == [False, True, False, False, False, False]
    assert rollouts.figures() == {"recomputed_logp": 1 / 6}
    again = [s.behavior_logp.tolist() for g in rollouts.groups([1, 0]) for s in g.samples]
    assert again == known[3:] + known[:3] and len(model.asked) == 1
    rollouts.groups([1])
    assert rollouts.figures() == {"recomputed_logp": 0.0}


def test_the_model_goes_once_every_response_is_scored(tmp_path: Path) -> None:
    """And comes back for a file that is new."""
    said: list[str] = []
    models: list[weakref.ref[Thirds]] = []

    def load(name: str) -> Thirds:
        models.append(weakref.ref(model := Thirds()))
        return model

    writer = RolloutWriter(tmp_path / "data", Card(), TOKENIZER)
    writer.write([without_logp(group(n), 1) for n in (0, 3)], 1, offset=0)
    run = opener(scorer=load, say=said.append)
    rollouts = opened(str(tmp_path / "data"), run, score_with="named", folder=tmp_path / "scores")
    rollouts.groups([1])
    rollouts.groups([1])
    assert models[0]() is not None
    rollouts.groups([0])
    assert models[0]() is None
    rollouts.refresh()
    known = [s.behavior_logp.tolist() for g in rollouts.groups([0, 1]) for s in g.samples]
    assert known[1] == pytest.approx([-1 / 3] * 2) and len(models) == 1
    writer.write([without_logp(group(6), 1)], 2, offset=0)
    rollouts.refresh()
    assert models[1]() is not None
    rollouts.groups([2])
    assert models[1]() is None and len(said) == 1


def test_a_resumed_run_goes_on_with_the_log_probs_of_its_checkpoint(tmp_path: Path) -> None:
    """Those computed later are computed again; a run that begins anew has none."""
    path = written(tmp_path / "data", without_logp(group(0), 1), without_logp(group(3), 2))
    asked: Any = {"score_with": "named", "folder": tmp_path / "scores"}
    first = opened(path, opener(scorer=lambda name: Thirds()), **asked)
    first.groups([0])
    state = first.state_dict()
    first.groups([1])
    assert len(list((tmp_path / "scores").iterdir())) == 2
    model = Thirds()
    again = opened(path, opener(scorer=lambda name: model), **asked)
    again.load_state_dict(state)
    assert len(list((tmp_path / "scores").iterdir())) == 1
    again.groups([0])
    assert model.asked == []
    again.groups([1])
    assert len(model.asked) == 1 and again.state_dict() == first.state_dict()
    new = opened(path, opener(scorer=lambda name: model), **asked)
    new.groups([0])
    assert len(model.asked) == 2 and len(list((tmp_path / "scores").iterdir())) == 1


def test_log_probs_of_other_weights_are_not_used(tmp_path: Path) -> None:
    path = written(tmp_path / "data", without_logp(group(0), 1))
    asked: Any = {"score_with": "named", "folder": tmp_path / "scores"}
    first = opened(path, opener(scorer=lambda name: Thirds()), **asked)
    first.groups([0])
    other = Thirds()
    other.weights = "w2"
    again = opened(path, opener(scorer=lambda name: other), **asked)
    with pytest.raises(UserError, match=r"buffer\.score_with=named has other weights"):
        again.load_state_dict(first.state_dict())


def test_what_nothing_reads_is_not_computed(tmp_path: Path) -> None:
    path = written(tmp_path / "data", without_logp(group(0), 1))
    said: list[str] = []
    run = opener(reads_behavior=False, say=said.append)
    (found,) = opened(path, run, score_with="base").groups([0])
    assert len(said) == 1 and "score_with is not used" in said[0]
    assert found.samples[1].behavior_logp.isnan().all()
    assert found.samples[2].behavior_logp.tolist() == group(0).samples[2].behavior_logp.tolist()


def test_log_probs_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    class Broken(Thirds):
        def __call__(self, groups: Sequence[Group]) -> list[Tensor]:
            return [logp * float("inf") for logp in super().__call__(groups)]

    path = written(tmp_path / "data", without_logp(group(0), 1))
    rollouts = opened(path, opener(scorer=lambda name: Broken()), score_with="x")
    with pytest.raises(UserError, match="not finite"):
        rollouts.groups([0])


def test_demonstrations_need_no_log_probs(tmp_path: Path) -> None:
    (found,) = opened(written(tmp_path, group(0, source="expert"))).groups([0])
    assert found.samples[1].behavior_logp.tolist() == [0.0, 0.0]
