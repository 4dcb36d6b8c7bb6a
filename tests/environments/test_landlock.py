from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.environments import landlock

READS = """
import ctypes, os, sys
from rlkit.environments.landlock import read_only
assert read_only([sys.argv[1], sys.argv[1] + "/nowhere"])
for path in sys.argv[2:]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        print("read")
    except OSError as error:
        print(type(error).__name__)
libc = ctypes.CDLL(None)
print(libc.open(sys.argv[3].encode(), 0) >= 0)
try:
    open(sys.argv[2], "a")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(not landlock.offered(), reason="the kernel has no Landlock")
def test_nothing_else_is_read_not_even_by_native_code(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a").write_text("a")
    environ = f"/proc/{os.getpid()}/environ"
    asked = [str(path) for path in (inside, inside / "a", outside / "a", environ, inside)]
    run = subprocess.run(
        [sys.executable, "-c", READS, *asked], capture_output=True, text=True, check=True
    )
    refused = "PermissionError"
    assert run.stdout.split() == ["read", refused, refused, "read", "False", refused]


def test_without_it_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "other")
    assert not landlock.offered() and not landlock.read_only(["/nowhere"])
