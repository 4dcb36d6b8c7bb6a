"""What keeps code that a model wrote from the rest of the machine, without any privileges.

Four layers: limits of the system on memory and file size; a hook (PEP 578) by
which Python code may not write, start, connect, or read outside Python's own library; and two that
hold for native code too, on Linux: a rule by which the kernel lets the process read no other files
(Landlock), and, on x86-64, a filter of system calls (seccomp). The hook is no security boundary:
code in the same interpreter can undo it. It is no virtual machine: the kernel is shared, and a
fault in it is a way out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import sys
import sysconfig
from typing import Any

from rlkit.environments.landlock import read_only
from rlkit.rewards.math.worker import REFUSED, WRITING, peak_bytes

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 38, 22, 2
LISTED = ("os.listdir", "os.scandir")
OWN = ("os.putenv", "os.unsetenv")
"""What imports do to this process alone."""
MORE_REFUSED = (
    "resource.",
    "signal.pthread_kill",
    "mmap.",
    "fcntl.",
    "sqlite3.",
    "gc.get_",
    "sys._current_",
)
HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/usr/share/zoneinfo")
_PATHS = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
LIBRARY = (
    *{folder for p in _PATHS for folder in (os.path.abspath(p), os.path.realpath(p))},
    *HARMLESS,
)
"""What Python code may read: Python's own library and the installed packages."""

SYSTEM_LIBRARIES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    os.path.join(sys.base_prefix, "lib"),
)
"""What native modules load, which the kernel lets the process read besides."""

# x86-64 numbers, from the kernel's syscall_64.tbl.
REFUSED_CALLS = (
    *(41, 42, 49, 50, 53),  # socket, connect, bind, listen, socketpair
    *(57, 58, 59, 322),  # fork, vfork, execve, execveat
    *(62, 200, 234, 129, 297, 424),  # kill, tkill, tgkill, the queueing ones, pidfd_send_signal
    *(101, 310, 311, 440, 448),  # ptrace, process_vm_readv and writev, process_madvise, mrelease
    *(76, 77, 82, 83, 84, 85, 86, 87, 88),  # truncate to symlink, by path
    *(90, 91, 92, 93, 94, 132, 133, 235),  # chmod, chown, utime, mknod, utimes
    *(258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316, 452),  # the same at a folder
    *(188, 189, 190, 197, 198, 199),  # setxattr, removexattr
    *(155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 442),  # mounts and namespaces
    *(160, 248, 250, 298, 321, 323, 425, 426, 427),  # setrlimit, keys, perf, bpf, io_uring
    *(175, 246, 313, 320),  # modules and kexec
    *(141, 142, 144, 203, 251, 256, 279, 314),  # priority, processors and memory of other processes
    *(29, 30, 31, 68, 69, 70, 71, 438),  # shared memory and queues that stay, pidfd_getfd
)
OPEN, OPENAT, OPENAT2, CLONE, CLONE3, PRLIMIT = 2, 257, 437, 56, 435, 302
CLONE_THREAD = 0x10000
AUDIT_ARCH_X86_64 = 0xC000003E
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


class Instruction(ctypes.Structure):
    """One instruction of a filter (struct sock_filter)."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class Program(ctypes.Structure):
    """A filter (struct sock_fprog)."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))


def limit_memory(memory_mb: int) -> None:
    """Let this process take so much memory on top of the address space that it has."""
    limit = peak_bytes() + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def die_with_parent(parent: int) -> None:
    """End this process when its parent ends, also inside a long call (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def shut_in() -> bool:
    """Put this process into all layers that the system has; returns whether calls are filtered.

    For one thread: others that run already are outside the layers of the kernel.
    """
    no_files = (0, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, no_files)
    resource.setrlimit(resource.RLIMIT_CORE, no_files)
    read_only((*LIBRARY, *SYSTEM_LIBRARIES))
    filtered = filter_calls()
    refuse_python()
    return filtered


def refuse_python() -> None:
    """Let Python code neither write, start nor connect, and read nothing but Python's library.

    What the hooks need is bound to them as defaults: the code that they watch shares all modules
    with them, and may put other things there. They call no function and no method that such code
    can replace, and what would find the hooks themselves (gc.get_objects) is refused. They are no
    barrier to code that writes memory, as ctypes, numpy and marshal can.
    """
    refuse_uses()
    refuse_reads()


def refuse_uses() -> None:
    """Refuse what starts, connects, changes files or finds the hooks; see `refuse_python`."""
    held = ((*REFUSED, *MORE_REFUSED), (*LISTED, *OWN), PermissionError)

    def uses(event: str, arguments: tuple[Any, ...], bound: Any = held) -> None:
        prefixes, free, refusal = bound
        if event.startswith(prefixes) and event not in free:
            raise refusal(f"this process may not use {event}")

    sys.addaudithook(uses)


def refuse_reads() -> None:
    """Refuse files outside Python's library, and all writing; see `refuse_python`."""
    inside = tuple(f"{folder}/" for folder in LIBRARY)
    held = (LIBRARY, inside, LISTED, WRITING, PermissionError, isinstance, (str, bytes, int))

    def reads(event: str, arguments: tuple[Any, ...], bound: Any = held) -> None:
        folders, beginnings, listed, writing, refusal, is_a, (as_text, as_bytes, number) = bound
        if event != "open" and event not in listed:
            return
        path, place = arguments[0], ""
        if event == "open" and (arguments[2] or 0) & writing:
            raise refusal("this process may not open files for writing")
        if is_a(path, number):  # a descriptor that is open already
            return
        # By the methods of str and bytes themselves: those of a subclass may say anything.
        if is_a(path, as_bytes):
            path = as_bytes.decode(path, "utf-8", "surrogateescape")
        text = as_text.__str__(path) if is_a(path, as_text) else ""
        for part in text.split("/") if text[:1] == "/" else ():
            if part == "..":
                place = place[: place.rfind("/")] if place else ""
            elif part not in ("", "."):
                place += "/" + part
        if place not in folders and not place.startswith(beginnings):
            raise refusal(f"this process may not read {text!r}")

    sys.addaudithook(reads)


def filter_calls() -> bool:
    """Refuse system calls that start, connect, change files or reach other processes.

    Returns whether the system can: Linux on x86-64. The filter cannot be taken off again.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    instructions = (Instruction * len(PROGRAM))(*(Instruction(*each) for each in PROGRAM))
    program = Program(len(PROGRAM), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    filtered = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    return bool(filtered == 0)


def _program() -> tuple[tuple[int, int, int, int], ...]:
    """The filter. An argument's low half stands at 16 + 8 i of what it reads, the number at 0."""
    refuse, absent = (RETURN, 0, 0, ERRNO | errno.EPERM), (RETURN, 0, 0, ERRNO | errno.ENOSYS)
    allow, number = (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 0)
    out = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), refuse, number]
    out += [(JUMP_GREATER_EQUAL, 0, 1, 0x40000000), refuse]
    for call in REFUSED_CALLS:
        out += [(JUMP_EQUAL, 0, 1, call), refuse]
    for call in (
        OPENAT2,
        CLONE3,
    ):  # their flags are out of sight; libraries fall back on the others
        out += [(JUMP_EQUAL, 0, 1, call), absent]
    for call, argument in ((OPEN, 1), (OPENAT, 2)):
        flags = (LOAD, 0, 0, 16 + 8 * argument)
        out += [(JUMP_EQUAL, 0, 4, call), flags, (JUMP_ANY_BIT, 0, 1, WRITING), refuse, allow]
    # A thread may be started, a process may not.
    out += [(JUMP_EQUAL, 0, 4, CLONE), (LOAD, 0, 0, 16), (JUMP_ANY_BIT, 1, 0, CLONE_THREAD)]
    out += [refuse, allow]
    # A limit may be read (no new one is given), and not set.
    out += [(JUMP_EQUAL, 0, 4, PRLIMIT), (LOAD, 0, 0, 32), (JUMP_EQUAL, 1, 0, 0), refuse, allow]
    return (*out, allow)


PROGRAM = _program()
