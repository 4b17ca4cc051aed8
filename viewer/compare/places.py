"""The command palette of the comparison: its keys, its ways to count and to draw, its layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.types import IgnoreReturnCallbackType

from diffusion_xray.tracer.comparison.pairing import LINKS
from diffusion_xray.tracer.info import printable

from .draw import LABELS
from .header import tolerance_text
from .state import MODES, TOLERANCES

if TYPE_CHECKING:
    from .screen import CompareScreen

__all__ = ["CompareActions", "ComparedLayers"]

_MOST = 50
_Entry = tuple[str, str, IgnoreReturnCallbackType]


class _Places(Provider):
    """Entries whose text holds every word typed. The stock matcher takes a blank for a letter to be found."""

    def entries(self) -> Iterator[_Entry]:
        """Text, help and command of each entry."""
        raise NotImplementedError

    @property
    def compare(self) -> CompareScreen:
        """The screen that the palette was opened on."""
        return cast("CompareScreen", self.screen)

    async def discover(self) -> Hits:
        for place, (text, note, command) in enumerate(self.entries()):
            if place >= _MOST:
                return
            yield DiscoveryHit(Content(printable(text)), command, text=text, help=note or None)

    async def search(self, query: str) -> Hits:
        words, found = query.lower().split(), 0
        for text, note, command in self.entries():
            if all(word in text.lower() for word in words):
                found += 1
                yield Hit(1 - found / 1000, Content(printable(text)), command, text=text, help=note or None)
            if found >= _MOST:
                return


class ComparedLayers(_Places):
    """Layers to go to."""

    def entries(self) -> Iterator[_Entry]:
        """The layers in execution order."""
        for row, pair in enumerate(self.compare.state.table.pairing.pairs):
            yield pair.a.key, printable(pair.a.module_class), partial(self.compare.go_to, row)


class CompareActions(_Places):
    """What the keys do, and what they choose from."""

    def entries(self) -> Iterator[_Entry]:
        """The keys in their order, then tolerances, modes and links."""
        screen = self.compare
        for binding in screen.BINDINGS:
            if isinstance(binding, Binding):
                action = partial(screen.run_action, binding.action)
                yield binding.description, f"{binding.tooltip} ({binding.key_display or binding.key})", action
        for tolerance in TOLERANCES:
            yield f"Tolerance {tolerance_text(tolerance)}", "", partial(screen.set_tolerance, tolerance)
        for mode in MODES:
            yield f"Diff mode {mode}", LABELS[mode], partial(screen.set_mode, mode)
        for by in LINKS:
            yield f"Link steps by {by}", "", partial(screen.set_link, by)
