"""How much memory there is, from what the system tells."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diffusion_xray.tracer.recording.memory import available_memory

MEMINFO = "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    4000 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    """A file system with these files alone."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"proc/meminfo": MEMINFO}, 4000 * 1024),
        ({"proc/meminfo": "MemAvailable: many\nMemAvailable"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, math.inf),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000000",
                "sys/fs/cgroup/a/memory.stat": "anon 300000\nfile 600000\n",
                "sys/fs/cgroup/a/b/memory.max": "max",
            },
            700000,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n2:memory:/x\n0::/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "5000",
                "sys/fs/cgroup/memory/x/memory.stat": "total_rss 9000\ngarbage\n",
            },
            0,
        ),
        ({"proc/self/cgroup": "garbage\n\n", "proc/meminfo": "\n"}, math.inf),
    ],
    ids=["nothing", "machine", "nonsense", "no limit", "group above", "version 1", "garbage"],
)
def test_the_least_of_what_is_told_counts(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    """The machine's, and that of every group of processes above this one; infinite where nothing is told."""
    assert available_memory(system(tmp_path, files)) == expected


def test_of_this_machine_something_is_known() -> None:
    """Whatever the system, the answer is a number of bytes above zero."""
    assert available_memory() > 0
