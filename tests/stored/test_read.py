"""Stored groups are read back as they were written, a few at a time."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rlkit.distributed.processes import Processes
from rlkit.errors import UserError
from rlkit.stored import read
from rlkit.stored.card import Card
from rlkit.stored.read import StoredRollouts
from rlkit.stored.step_files import forget_after
from rlkit.stored.table import to_table
from rlkit.stored.write import RolloutWriter
from tests.ranks import on_ranks
from tests.stored.groups import TOKENIZER, group, same, without_logp


def file_of(path: Path, *groups: int, rows: int = 2) -> str:
    pq.write_table(to_table([group(n) for n in groups], TOKENIZER), path, row_group_size=rows)
    return str(path)


def test_a_group_comes_back_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    """But for cached log-probs, and its versions: it counts as sampled before the first step."""
    (found,) = StoredRollouts(file_of(tmp_path / "a.parquet", 3)).groups([0])
    made = group(3)
    assert same(found, made)
    assert torch.equal(found.prompt.ids, made.prompt.ids)
    assert found.prompt.columns == made.prompt.columns
    last = found.samples[2]
    assert torch.equal(torch.as_tensor(last.extras["kept"]), torch.arange(3) / 7)
    assert last.extras["seed"] == 5.0 and set(last.extras) == {"seed", "kept"}
    assert last.policy_version.tolist() == [0, 0, 0] and last.step == 0


def test_groups_that_cross_row_groups_are_whole(tmp_path: Path) -> None:
    """Three rows a group in row groups of two: the second group lies in three of them."""
    rollouts = StoredRollouts(file_of(tmp_path / "a.parquet", 1, 4, 8))
    for place, number in ((2, 8), (0, 1), (1, 4)):
        assert same(rollouts.groups([place])[0], group(number))
    ids = [s.sample_id for g in rollouts.groups([0, 1, 2]) for s in g.samples]
    assert len(set(ids)) == 9 and max(ids) < 0


def test_only_a_few_row_groups_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "KEPT", 2)
    rollouts = StoredRollouts(file_of(tmp_path / "a.parquet", *range(0, 60, 3), rows=3))
    rollouts.groups(range(20))
    assert len(rollouts._read) == 2


def test_new_shards_come_when_asked_for_and_old_ones_must_stay(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path, Card(), TOKENIZER)
    writer.write([group(0)], 1, offset=0)
    rollouts = StoredRollouts(str(tmp_path))
    writer.write([group(3), group(6)], 2, offset=0)
    (tmp_path / "data" / ".step-00000003.parquet.tmp").write_text("half")
    assert len(rollouts) == 1
    before = list(rollouts.names)
    rollouts.refresh()
    assert len(rollouts) == 3
    rollouts.refresh(before)
    assert len(rollouts) == 1
    forget_after(tmp_path, 1)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == before
    (tmp_path / "data" / before[0]).unlink()
    with pytest.raises(UserError, match="is gone"):
        rollouts.refresh(before)


def test_files_keep_their_order_when_a_run_resumes(tmp_path: Path) -> None:
    """A file that came later and whose name sorts first stays behind, so no place changes."""
    file_of(tmp_path / "b.parquet", 3)
    rollouts = StoredRollouts(str(tmp_path))
    file_of(tmp_path / "a.parquet", 6)
    rollouts.refresh()
    again = StoredRollouts(str(tmp_path))
    again.refresh(rollouts.names)
    assert rollouts.names == again.names == ["b.parquet", "a.parquet"]
    for found in (rollouts, again):
        assert same(found.groups([0])[0], group(3)) and same(found.groups([1])[0], group(6))


def test_ranks_read_what_the_main_process_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lists the folder when it comes there: here rank 1 sees a new file a moment later."""
    listed, late = StoredRollouts._files, {"b.parquet": 3, "a.parquet": 3}

    def seen(rollouts: StoredRollouts) -> dict[str, Path]:
        files = listed(rollouts)
        if rollouts.processes.rank == 1:
            for name in files.keys() & late.keys():
                late[name] -= 1
            return {name: path for name, path in files.items() if late.get(name, 0) <= 0}
        return files

    monkeypatch.setattr(StoredRollouts, "_files", seen)
    for name in ("c", "b"):
        file_of(tmp_path / f"{name}.parquet", 3)

    def read(processes: Processes) -> tuple[list[str], list[str]]:
        rollouts = StoredRollouts(str(tmp_path), processes=processes)
        opened = rollouts.names
        processes.on_main(lambda: file_of(tmp_path / "a.parquet", 6))
        rollouts.refresh()
        return opened, rollouts.names

    first, second = on_ranks(read)
    assert first == second == (["b.parquet", "c.parquet"], ["b.parquet", "c.parquet", "a.parquet"])


def test_a_rank_that_never_sees_a_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one on a machine with a folder of its own by that name."""
    monkeypatch.setattr(read, "PATIENCE", 0.1)
    monkeypatch.setattr(StoredRollouts, "_files", lambda rollouts: {})
    told = Processes()
    monkeypatch.setattr(told, "on_main", lambda call: ["a.parquet"])
    with pytest.raises(UserError, match=r"does not see a\.parquet.*same folder"):
        StoredRollouts(str(tmp_path), processes=told)


def test_log_probs_cached_under_another_runs_reference_are_not_read(tmp_path: Path) -> None:
    """A file can hold them, under the very name by which this run would look for its own."""
    table = to_table([group(0)], TOKENIZER)
    for name, value in (("extras", 0.5), ("token_extras", [0.5])):
        column = [
            [*row, {"name": "anchor_logp:base:0", "value": value}]
            for row in table[name].to_pylist()
        ]
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(column, type=table.schema.field(name).type))
    pq.write_table(table, tmp_path / "a.parquet")
    (found,) = StoredRollouts(str(tmp_path / "a.parquet")).groups([0])
    assert [set(s.extras) for s in found.samples] == [{"seed", "kept"}] * 3


def test_log_probs_that_are_not_stored_are_no_numbers(tmp_path: Path) -> None:
    table = to_table([without_logp(group(0), 1), group(3, source="expert")], TOKENIZER)
    pq.write_table(table, tmp_path / "a.parquet")
    first, shown = StoredRollouts(str(tmp_path / "a.parquet")).groups([0, 1])
    assert [bool(s.behavior_logp.isnan().all()) for s in first.samples] == [False, True, False]
    assert not any(s.behavior_logp.any() for s in shown.samples)


def test_demonstrations_have_no_log_probs_and_need_none(tmp_path: Path) -> None:
    writer = RolloutWriter(tmp_path, Card(), TOKENIZER)
    writer.write([group(0, source="expert")], 1, offset=0)
    rollouts = StoredRollouts(str(tmp_path))
    assert not rollouts.unknown_logp
    assert rollouts.groups([0])[0].samples[1].behavior_logp.tolist() == [0.0, 0.0]


def test_what_is_no_rollout_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        StoredRollouts(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column group"):
        StoredRollouts(str(tmp_path / "a.parquet"))
    rows = to_table([group(0), group(3)], TOKENIZER)
    pq.write_table(rows.take([0, 3, 1]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="do not stand together"):
        StoredRollouts(str(tmp_path / "a.parquet"))


def test_a_table_without_log_probs_says_so(tmp_path: Path) -> None:
    table = to_table([group(0)], TOKENIZER).drop_columns(["behavior_logp"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert StoredRollouts(str(tmp_path / "a.parquet")).unknown_logp


@pytest.mark.parametrize("told", [True, False])
def test_one_unknown_log_prob_is_enough(tmp_path: Path, told: bool) -> None:
    """Whether the file's own metadata says so or every row is looked at."""
    made = group(0)
    lost = replace(made.samples[2], behavior_logp=torch.full((3,), torch.nan))
    groups = [group(3), replace(made, samples=[*made.samples[:2], lost])]
    about = asdict(Card()) if told else None
    for name, held in (("a", [group(3)]), ("b", groups)):
        table = to_table(held, TOKENIZER, about=about)
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    assert not StoredRollouts(str(tmp_path / "a.parquet")).unknown_logp
    assert StoredRollouts(str(tmp_path / "b.parquet")).unknown_logp
