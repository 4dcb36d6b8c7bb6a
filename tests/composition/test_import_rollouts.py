"""`rlkit import`, and what trains on the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import SMALL, command, metrics, run
from tests.stored.foreign import files


@pytest.mark.slow
def test_through_the_commands(tmp_path: Path) -> None:
    """A loss that reads behavior log-probs refuses what has none unless a model gives them."""
    path = files.verl(tmp_path / "7.jsonl")
    arguments = ("import", "--from", "verl", str(path), "out", "--tokenizer", "embedded")
    result = command("rlkit.__main__", *arguments, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out.startswith("out: 3 responses in 2 groups")
    offline = (*SMALL, "buffer=stored", "buffer.path=out", "train.minibatches=1")
    refused = run(*offline, "algorithm=topr", "output_dir=a", cwd=tmp_path)
    assert refused.status == 2 and "without behavior log-probs" in refused.err
    assert "buffer.score_with=base" in refused.err
    rate = run(*offline, "algorithm=asymre", "train.lr_ess=1", "output_dir=a", cwd=tmp_path)
    assert rate.status == 2 and len(rate.err.splitlines()) == 1
    assert "train.lr_ess reads" in rate.err and "or set train.lr_ess=null" in rate.err
    given = run(*offline, "algorithm=topr", "buffer.score_with=base", "output_dir=a", cwd=tmp_path)
    assert given.status == 0, given.err
    assert "recomputed under embedded" in given.out
    trained = run(*offline, "algorithm=asymre", "output_dir=b", cwd=tmp_path)
    assert trained.status == 0, trained.err
    shares = [r.get("buffer/recomputed_logp") for r in metrics(tmp_path / "a") if r["step"] == 1]
    assert 1.0 in shares and metrics(tmp_path / "b")[-1]["rollouts/total"] == 0
    known = command("rlkit.__main__", *arguments[:2], "vrl", *arguments[3:], cwd=tmp_path)
    assert known.status == 2 and "verl" in known.err
