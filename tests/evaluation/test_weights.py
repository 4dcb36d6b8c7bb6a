"""Weights are told apart."""

from __future__ import annotations

from pathlib import Path

from rlkit.evaluation.weights import weights_of


def test_weights_differ_where_a_file_does(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1")
    before = weights_of(str(tmp_path))
    assert before == weights_of(str(tmp_path)) and weights_of("no/such/model") is None
    file.write_bytes(b"22")
    assert weights_of(str(tmp_path)) != before
    (tmp_path / "manifest.json").write_text("{}")
    assert weights_of(str(tmp_path)) not in (None, before)
