"""Find what installed packages add, by entry point: taps, commands, recipes."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

__all__ = ["COMMANDS", "TAPS", "find"]

TAPS = "diffusion_xray.taps"
COMMANDS = "diffusion_xray.commands"


def find(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported yet."""
    return {entry.name: entry for entry in entry_points(group=group)}
