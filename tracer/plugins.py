"""Find what installed packages add: taps and commands, by entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .taps.protocol import Tap

__all__ = ["COMMANDS", "TAPS", "find", "load_taps"]

TAPS = "diffusion_xray.taps"
COMMANDS = "diffusion_xray.commands"


def find(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported yet."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_taps() -> tuple[dict[str, Tap], dict[str, Exception]]:
    """Make one tap of each kind installed, the built-in ones included.

    Returns:
        The taps by name, and by name the errors of those that do not load.
    """
    taps: dict[str, Tap] = {}
    failed: dict[str, Exception] = {}
    for name, entry in find(TAPS).items():
        try:
            taps[name] = entry.load()()
        except Exception as error:  # noqa: BLE001 — a broken plug-in must not take the others with it
            failed[name] = error
    return taps, failed
