"""How much memory is there? Linux promises more than it has, and ends the process that takes it at its word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory"]

_ROOT = Path("/")


def available_memory(root: Path = _ROOT) -> float:
    """Bytes that this process may still fill, as far as the system tells; infinite where it does not.

    The least of what the machine has left (`MemAvailable`) and what the control groups of the process leave it, version
    2 (`memory.max`) or 1 (`memory.limit_in_bytes`). Files that are kept in memory count as free, swap does not.

    Args:
        root: Of the file system.
    """
    return min([math.inf, *_of_machine(root / "proc/meminfo"), *_of_groups(root)])


def _of_machine(file: Path) -> Iterator[float]:
    for line in _lines(file):
        name, _, value = line.partition(":")
        if name == "MemAvailable" and (kilobytes := _number(value.removesuffix(" kB"))) is not None:
            yield kilobytes * 1024.0


def _of_groups(root: Path) -> Iterator[float]:
    groups = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, kinds, path = (*line.split(":", 2), "", "")[:3]
        if not kinds:
            base, limit, used = groups, "memory.max", "anon"
        elif "memory" in kinds.split(","):
            base, limit, used = groups / "memory", "memory.limit_in_bytes", "total_rss"
        else:
            continue
        own = base / path.lstrip("/")
        for group in (own, *own.parents):  # a group has no more than those above it
            most = _number("".join(_lines(group / limit)))  # "max" is no limit
            if most is not None:
                words = dict(line.split(" ", 1) for line in _lines(group / "memory.stat") if " " in line)
                yield float(max(most - (_number(words.get(used, "")) or 0), 0))
            if group == base:
                break


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
