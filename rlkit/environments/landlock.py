"""Landlock: the kernel lets a process read some folders, and no other file.

It needs no privileges, holds for native code, and cannot be taken off again (Linux 5.13 and later;
Documentation/userspace-api/landlock.rst). Descriptors that are open stay open.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446
"""System calls, numbered alike on all common machines."""
ASK_VERSION, BENEATH = 1, 1
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
HANDLED = (1 << 13) - 1
"""What the first version knows: run, write, read, list, make and remove files of all kinds."""
NO_NEW_PRIVS = 38


class Ruleset(ctypes.Structure):
    """What is refused unless a rule allows it (struct landlock_ruleset_attr)."""

    _fields_ = (("handled", ctypes.c_uint64),)


class Beneath(ctypes.Structure):
    """What is allowed in a folder (struct landlock_path_beneath_attr)."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def offered() -> bool:
    """Whether the kernel has Landlock, switched on."""
    if sys.platform != "linux":
        return False
    return int(ctypes.CDLL(None).syscall(CREATE, None, ctypes.c_size_t(0), ASK_VERSION)) > 0


def read_only(paths: Iterable[str]) -> bool:
    """Let this thread, and those it starts, read files in `paths`, and open nothing else.

    Paths that do not exist are left out. Returns whether the kernel can; if not, nothing changes.
    """
    if not offered():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    asked = Ruleset(HANDLED)
    size = ctypes.c_size_t(ctypes.sizeof(asked))
    rules = libc.syscall(CREATE, ctypes.byref(asked), size, 0)
    if rules < 0:
        return False
    try:
        for path in paths:
            if not _allowed(libc, rules, path):
                return False
        if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return bool(libc.syscall(RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _allowed(libc: ctypes.CDLL, rules: int, path: str) -> bool:
    """Add a rule; false if the kernel does not take it."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        access = READ_FILE | READ_FOLDER if os.path.isdir(path) else READ_FILE
        rule = Beneath(access, opened)
        return bool(libc.syscall(ADD, rules, BENEATH, ctypes.byref(rule), 0) == 0)
    finally:
        os.close(opened)
