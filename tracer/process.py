"""Which process writes a trace, and whether it still runs: so that a reader can tell a pause from a death."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["describe_process", "is_gone", "lives_elsewhere"]

_PROC = Path("/proc")


def describe_process() -> dict[str, Any]:
    """This process, for the head of a trace; names neither the machine nor its user."""
    return {"pid": os.getpid(), "started": _started(os.getpid()), "machine": _machine()}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process that described itself has ended.

    False where that cannot be known: it ran on another machine or in another container, or described itself wrongly.
    """
    pid = process.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0 or process.get("machine") != _machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it belongs to another user
        return False
    started = process.get("started")
    return isinstance(started, int) and started != _started(pid)  # else the number was given to another process


def lives_elsewhere(process: Mapping[str, Any]) -> bool:
    """Whether a process that described itself is another one on this machine, and still runs."""
    pid = process.get("pid")
    known = isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 and process.get("machine") == _machine()
    return known and pid != os.getpid() and not is_gone(process)


def _machine() -> str:
    """What tells this machine, since it was last started, and this container from others."""
    parts = [platform.node()]
    try:
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(str((_PROC / "self/ns/pid").readlink()))
    except OSError:  # not Linux
        pass
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process was started, in ticks of the kernel's clock; None where the system does not tell."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
