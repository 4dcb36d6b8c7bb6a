"""`rlkit import`, and what trains on the result."""

from __future__ import annotations

from pathlib import Path

from tests.cli import SMALL, command, metrics, run
from tests.stored.foreign import files


def test_through_the_commands(tmp_path: Path) -> None:
    """A loss that reads behavior log-probs refuses what has none, one that does not trains."""
    path = files.verl(tmp_path / "7.jsonl")
    arguments = ("import", "--from", "verl", str(path), "out", "--tokenizer", "embedded")
    result = command("rlkit.__main__", *arguments, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out.startswith("out: 3 responses in 2 groups")
    offline = (*SMALL, "buffer=stored", "buffer.path=out", "train.minibatches=1")
    refused = run(*offline, "algorithm=topr", "output_dir=a", cwd=tmp_path)
    assert refused.status == 2 and "without behavior log-probs" in refused.err
    trained = run(*offline, "algorithm=asymre", "output_dir=b", cwd=tmp_path)
    assert trained.status == 0, trained.err
    assert metrics(tmp_path / "b")[-1]["rollouts/total"] == 0
    known = command("rlkit.__main__", *arguments[:2], "vrl", *arguments[3:], cwd=tmp_path)
    assert known.status == 2 and "verl" in known.err
