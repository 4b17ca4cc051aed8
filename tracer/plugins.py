"""Find what installed packages add, by entry point: taps, commands, recipes."""

from __future__ import annotations

import functools
import os
import sys
from importlib.metadata import EntryPoint, entry_points

__all__ = ["COMMANDS", "PLUGINS", "TAPS", "find"]

PLUGINS = "DXRAY_PLUGINS"
"""Environment variable; "own" leaves out what other packages add, to see whether one of them is to blame."""
_OWN = "diffusion-xray"

TAPS = "diffusion_xray.taps"
COMMANDS = "diffusion_xray.commands"


def find(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported yet."""
    found = _found(group, tuple(map(_state, sys.path)))
    if os.environ.get(PLUGINS) == "own":
        found = tuple(entry for entry in found if entry.dist is not None and entry.dist.name == _OWN)
    return {entry.name: entry for entry in found}


@functools.lru_cache(maxsize=16)
def _found(group: str, _: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group while the folders of packages are as they are: to read them takes milliseconds."""
    return tuple(entry_points(group=group))


def _state(folder: str) -> tuple[str, int]:
    """A folder, and when something was last put into it or taken out."""
    try:
        return folder, os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 — the quickest way, as it is for every start
    except OSError:
        return folder, 0
